// How numbers, moments, modes and events are said. The events are bits of a prediction, lowest first.

export const MODES = ["inference", "calibration", "diagnostic"];

// [name, what it means, how it is marked in the chart: "" not at all]
export const EVENTS = [
  ["DomainError", "value ignored: catastrophically far out", "bad"],
  ["OutlierDetected", "outlier: nothing learnt from it", "warn"],
  ["StalenessWarning", "tick was old on arrival", ""],
  ["FrequencyWarning", "gap between ticks far longer than usual", ""],
  ["FrozenSignal", "the value has not moved for long", ""],
  ["ModeDegradationAlert", "kernel B collapsed", "bad"],
  ["KurtosisOutlierWarning", "heavy tails: mistrust the band's ends", ""],
  ["NormalOperationRestoredEvent", "back in order", "good"],
  ["RegimeChangeDetected", "regime change: weights start anew", "regime"],
  ["EmergencyMode", "singular signal: kernel D takes over", "bad"],
  ["IntegrityError", "numbers are not what they should be", "bad"],
  ["Reanchored", "far-out values believed: the level is anchored anew", "warn"],
  ["DegradedInference", "weights stand still", ""],
  ["ModeCollapseWarning", "entropy of kernel B below its threshold", "bad"],
  ["GracePeriod", "grace period after a change", ""],
];

export const eventsOf = (bits) => EVENTS.filter((_, bit) => (bits >>> bit) & 1);

const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

export function whole(value) {
  return known(value) ? Math.round(value).toLocaleString("en") : "–";
}

export function number(value, digits = 6) {
  if (!known(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e9)) return value.toExponential(3);
  return Number(value.toPrecision(digits)).toLocaleString("en", { maximumFractionDigits: 10 });
}

export function milliseconds(value) {
  if (!known(value)) return "–";
  return value >= 1000 ? `${(value / 1000).toFixed(1)} s` : `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
}

export function duration(seconds) {
  if (!known(seconds)) return "–";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} days`;
}

export function bytes(value) {
  if (!known(value)) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value < 10 && unit ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

export const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");
export const percent = (part, all) => (all ? `${((100 * part) / all).toFixed(1)} %` : "–");
