// Dead letters: how many, of what kind, the newest, and for operators the two ways out.

import { h, say, table } from "./dom.js";
import { ask } from "./link.js";
import { mayOrder, orderButton } from "./order.js";
import { whole } from "./words.js";

const EVERY_MS = 4000;

export class RejectedView {
  constructor(root, shared) {
    this.shared = shared;
    this.picked = new Set();
    this.note = h("p", { class: "hint", role: "status" }, "Reading …");
    this.kinds = h("div");
    this.newest = h("div");
    this.orders = h("div", { class: "buttons" });
    root.append(h("section", { "aria-labelledby": "title" }, h("h2", { id: "title" }, "Rejected ticks"), this.note, this.kinds, this.orders, this.newest));
    if (mayOrder(shared)) this.offer();
    this.read();
    this.timer = setInterval(() => document.hidden || this.read(), EVERY_MS);
  }

  close() {
    clearInterval(this.timer);
  }

  offer() {
    const chosen = (verb) => () => (this.picked.size ? { title: `${verb} ${this.picked.size} dead letters`, fields: { places: [...this.picked] } } : null);
    const done = () => {
      this.picked.clear();
      this.shown = "";
      this.read();
    };
    this.orders.append(
      orderButton(this.shared, "Requeue the chosen", "requeue", chosen("Requeue"), done),
      orderButton(this.shared, "Purge the chosen", "purge", chosen("Purge"), done),
    );
  }

  async read() {
    try {
      this.show(await ask("/rejected"));
    } catch (error) {
      say(this.note, error.message);
    }
  }

  show(told) {
    say(this.note, told.total ? `${whole(told.total)} in all; the kinds are of the newest ${whole(told.looked_at)}` : "There are none: every tick found a worker that took it.");
    this.orders.hidden = !told.total;
    const key = JSON.stringify(told);
    if (key === this.shown) return;
    this.shown = key;
    if (!told.total) {
      this.kinds.replaceChildren();
      this.newest.replaceChildren();
      return;
    }
    const kinds = Object.entries(told.kinds).sort((a, b) => b[1] - a[1]);
    this.kinds.replaceChildren(table(["reason", "count"], kinds.map(([kind, count]) => [kind, whole(count)]), "By reason"));
    this.newest.replaceChildren(table([...(mayOrder(this.shared) ? ["choose"] : []), "arrived", "asset", "reason", "place"], told.newest.map((letter) => this.row(letter)), "The newest"));
  }

  row(letter) {
    const place = `${letter.partition}:${letter.id}`;
    const asset = h("a", { href: `#/assets/${encodeURIComponent(letter.asset)}` }, letter.asset);
    const arrived = letter.arrived ? letter.arrived.slice(0, 19).replace("T", " ") : "–";
    const cells = [arrived, asset, letter.reason, h("code", {}, place)];
    return mayOrder(this.shared) ? [this.box(place), ...cells] : cells;
  }

  box(place) {
    const box = h("input", { type: "checkbox", "aria-label": `choose ${place}`, onchange: () => (box.checked ? this.picked.add(place) : this.picked.delete(place)) });
    box.checked = this.picked.has(place);
    return box;
  }
}
