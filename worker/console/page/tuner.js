// The tuner of the fleet's transport: who leads, each knob, the newest decisions, and for operators pause, resume, rollback.

import { h, say, table } from "./dom.js";
import { ask } from "./link.js";
import { mayOrder, orderButton } from "./order.js";
import { duration, number } from "./words.js";

const EVERY_MS = 3000;

export class TunerView {
  constructor(root, shared) {
    this.note = h("p", { class: "hint", role: "status" }, "Reading …");
    this.facts = h("dl", { class: "facts" });
    this.knobs = h("div");
    this.decisions = h("div");
    const orders = h("div", { class: "buttons" });
    if (mayOrder(shared)) {
      for (const [label, order] of [["Pause", "pause"], ["Resume", "resume"], ["Roll back to the baseline", "rollback"]]) {
        orders.append(orderButton(shared, label, order, () => ({ title: `${label}: the tuner` }), () => this.read()));
      }
    }
    root.append(h("section", { "aria-labelledby": "title" }, h("h2", { id: "title" }, "Tuner"), this.note, this.facts, orders, this.knobs, this.decisions));
    this.read();
    this.timer = setInterval(() => document.hidden || this.read(), EVERY_MS);
  }

  close() {
    clearInterval(this.timer);
  }

  async read() {
    try {
      this.show(await ask("/tuner"));
    } catch (error) {
      say(this.note, error.message);
    }
  }

  show(told) {
    say(this.note, told.next ?? "");
    const facts = [
      ["leader", told.leader ?? "nobody"],
      ["lease left", duration(told.lease_left_s)],
      ["mode", told.mode],
      ["phase", told.phase ?? "–"],
      ["generation", String(told.generation)],
      ["baseline", String(told.baseline_generation ?? "–")],
      ["safe mode", told.safe_mode ?? "off"],
      ["objective", number(told.objective_reference, 4)],
    ];
    this.facts.replaceChildren(...facts.map(([label, text]) => h("div", {}, h("dt", {}, label), h("dd", {}, text))));
    const knobs = told.knobs.map((knob) => [knob.knob, `${number(knob.live, 4)} ${knob.unit}`, number(knob.baseline, 4), number(knob.settings, 4), [knob.pinned && "pinned", knob.at_bound && "at its bound"].filter(Boolean).join(", ") || "–"]);
    this.knobs.replaceChildren(knobs.length ? table(["knob", "live", "baseline", "settings", "state"], knobs, "Knobs") : "");
    const made = told.decisions.map((one) => [one.at.slice(0, 19).replace("T", " "), one.event, one.generation, one.actor, one.why]);
    this.decisions.replaceChildren(made.length ? table(["at", "what", "generation", "by", "why"], made, "The newest decisions") : "");
  }
}
