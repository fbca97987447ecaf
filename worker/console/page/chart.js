// Small charts in SVG, drawn at the width they have: lines, areas, round numbers at the side.

import { s } from "./dom.js";
import { number } from "./words.js";

export const isNumber = (value) => value !== null && value !== undefined && Number.isFinite(value);

export function spark(moments) {
  const values = moments.filter(isNumber);
  const [low, high] = [Math.min(0, ...values), Math.max(1e-9, ...values)];
  const x = (i) => (100 * i) / Math.max(1, values.length - 1);
  const y = (value) => 22 - (20 * (value - low)) / (high - low);
  return s("svg", { viewBox: "0 0 100 24", preserveAspectRatio: "none" }, s("path", { class: "line", d: path(values, x, y) }));
}

// A line that is lifted over what is not there; a point with no neighbour is a dot.
export function path(values, x, y, breaks = () => false) {
  const begins = (i) => !isNumber(values[i]) || !isNumber(values[i - 1]) || breaks(i);
  return values.map((value, i) => {
    if (!isNumber(value)) return "";
    const lone = begins(i) && (i + 1 === values.length || begins(i + 1));
    return `${begins(i) ? "M" : "L"}${x(i).toFixed(1)} ${y(value).toFixed(1)}${lone ? "h.1" : ""}`;
  }).join("");
}

// Areas between two lines, one for each stretch where both are known.
export function areas(lows, highs, x, y, breaks = () => false) {
  const pieces = [];
  let run = [];
  const end = () => {
    if (run.length > 1) {
      const there = run.map((i) => `${x(i).toFixed(1)} ${y(highs[i]).toFixed(1)}`);
      const back = [...run].reverse().map((i) => `${x(i).toFixed(1)} ${y(lows[i]).toFixed(1)}`);
      pieces.push(`M${[...there, ...back].join("L")}Z`);
    }
    run = [];
  };
  lows.forEach((_, i) => {
    if (!isNumber(lows[i]) || !isNumber(highs[i]) || breaks(i)) end();
    if (isNumber(lows[i]) && isNumber(highs[i])) run.push(i);
  });
  end();
  return pieces.join("");
}

export function spanOf(values) {
  const known = values.filter(isNumber);
  if (!known.length) return [0, 1];
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const air = 0.06 * (high - low || Math.abs(high) || 1);
  return [low - air, high + air];
}

// Lines across at multiples of 1, 2 or 5 times a power of ten, and the numbers beside them.
export function ruler([low, high], y, width, height, most = 4) {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough) ?? rough;
  const marks = [];
  for (let i = Math.ceil(low / step); i * step <= high && marks.length < 2 * most; i++) marks.push(i * step);
  return marks.flatMap((value) => [
    s("line", { class: "grid", x1: 0, x2: width, y1: y(value), y2: y(value) }),
    s("text", { class: "scale", x: width + 6, y: Math.max(9, Math.min(height - 1, y(value) + 4)) }, number(value)),
  ]);
}
