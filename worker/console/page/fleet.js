// The fleet: totals with a little of their past, and who holds which partition, a chip that moves when the lease does.

import { calm, h, mark, say } from "./dom.js";
import { spark } from "./chart.js";
import { bytes, clock, duration, milliseconds, number, whole } from "./words.js";

const COLOURS = 8;
const SLOTS_MAX = 128; // of more partitions only those held are shown, close together
const COLUMNS = 16;
const MOVED_MS = 6000;
const [RATE, BACKLOG, P99] = [1, 2, 4];

const TILES = [
  ["rate", "ticks/s", (t) => whole(t.rate), RATE],
  ["backlog", "waiting ticks", (t) => whole(t.backlog), BACKLOG],
  ["p99", "latency p99", (t) => milliseconds(t.latency_ms.p99), P99],
  ["p50", "latency p50", (t) => milliseconds(t.latency_ms.p50)],
  ["oldest", "oldest waiting", (t) => duration(t.oldest_s)],
  ["batch", "ticks in a batch", (t) => number(t.batch_ticks, 3)],
  ["assets", "assets", (t) => whole(t.assets)],
  ["applied", "ticks in all", (t) => whole(t.applied)],
];
const FACTS = [
  ["rate", "ticks/s", (w) => whole(w.rate)],
  ["backlog", "waiting", (w) => whole(w.backlog)],
  ["batch", "batch", (w) => number(w.batch_ticks, 3)],
  ["p99", "p99", (w) => milliseconds(w.latency_ms.p99)],
  ["depth", "depth", (w) => whole(w.depth)],
];

export class FleetView {
  constructor(root, shared) {
    this.shared = shared;
    this.tiles = new Map();
    this.rows = new Map();
    this.chips = new Map();
    this.colours = new Map();
    this.waitingFor = h("p", { class: "hint" }, "Waiting for the first look …");
    this.leases = h("div", { class: "leases" });
    this.moves = h("ol", { class: "moves", "aria-live": "polite", "aria-label": "Leases that moved" });
    this.server = h("p", { class: "server" });
    root.append(
      h("section", { class: "tiles", "aria-label": "Totals" }, ...TILES.map((tile) => this.tile(...tile))),
      h("section", { "aria-labelledby": "leases-title" }, h("h2", { id: "leases-title" }, "Who holds what"), this.waitingFor, this.leases),
      h("div", { class: "two" },
        h("section", { "aria-labelledby": "moves-title" }, h("h2", { id: "moves-title" }, "Leases that moved"), this.moves),
        h("section", { "aria-labelledby": "redis-title" }, h("h2", { id: "redis-title" }, "Redis"), this.server),
      ),
    );
  }

  tile(key, label, _, past) {
    const value = h("b", { id: `tile-${key}` }, "–");
    const line = past === undefined ? null : h("span", { class: "spark", "aria-hidden": "true" });
    this.tiles.set(key, { value, line });
    const title = label.startsWith("latency") ? "from a tick's arrival to its commit, the oldest of each batch" : null;
    return h("div", { class: "tile", title }, h("span", {}, label), value, line);
  }

  fleet(told) {
    this.waitingFor.hidden = true;
    for (const [key, , text, past] of TILES) {
      const { value, line } = this.tiles.get(key);
      say(value, text(told.totals));
      line?.replaceChildren(spark(this.shared.past.map((moment) => moment[past])));
    }
    this.showWorkers(told);
    this.showPartitions(told);
    this.showMoves();
    this.showServer(told.server);
  }

  showWorkers({ workers, partitions }) {
    const nobody = partitions.some(([owner]) => owner < 0);
    const wanted = [...(nobody ? [null] : []), ...workers];
    const names = wanted.map((worker) => worker?.name ?? "");
    for (const [name, row] of this.rows) {
      if (!names.includes(name)) {
        row.element.remove();
        this.rows.delete(name);
      }
    }
    wanted.forEach((worker, place) => {
      const row = this.rows.get(names[place]) ?? this.row(worker, partitions.length);
      if (this.leases.children[place] !== row.element) this.leases.insertBefore(row.element, this.leases.children[place] ?? null);
      if (worker) this.showWorker(row, worker);
    });
  }

  row(worker, partitions) {
    const name = worker?.name ?? "";
    const facts = new Map(FACTS.map(([key]) => [key, h("dd", {}, "–")]));
    const strip = h("ul", { class: partitions > SLOTS_MAX ? "strip dense" : "strip", "aria-label": `Partitions of ${name || "nobody"}` });
    const age = h("span", { class: "age" });
    const element = h("article", { class: worker ? "worker" : "worker nobody", "data-worker": name },
      h("div", { class: "who" }, h("i", { class: worker ? `spot owner-${this.colour(name)}` : "spot", "aria-hidden": "true" }), h("h3", {}, name || "nobody"), age),
      worker ? h("dl", {}, ...FACTS.map(([key, label]) => h("div", {}, h("dt", {}, label), facts.get(key)))) : h("p", { class: "hint" }, "held by no worker: the leases end, then others take over"),
      strip,
    );
    if (partitions <= SLOTS_MAX) {
      for (let p = 0; p < partitions; p++) strip.append(placed(h("li", { class: "slot", "aria-hidden": "true" }), p));
    }
    const row = { element, facts, strip, age };
    this.rows.set(name, row);
    return row;
  }

  showWorker(row, worker) {
    for (const [key, , text] of FACTS) say(row.facts.get(key), text(worker));
    mark(row.element, "gone", worker.gone);
    mark(row.element, "idle", worker.gone && !worker.held);
    const silent = worker.silent_s === null ? "not registered" : `silent for ${duration(worker.silent_s)}`;
    say(row.age, worker.gone ? silent : `${worker.held} held, heard ${duration(worker.silent_s)} ago`);
  }

  showPartitions({ workers, partitions }) {
    partitions.forEach(([owner, backlog, rate, oldest, sealed], p) => {
      const name = owner < 0 ? "" : workers[owner].name;
      const chip = this.chips.get(p) ?? this.chip(p);
      if (chip.owner !== name) this.move(chip, p, name);
      mark(chip.element, "late", oldest > 1);
      mark(chip.element, "sealed", Boolean(sealed));
      const text = `partition ${p}, ${name ? `held by ${name}` : "held by nobody"}, ${whole(backlog)} waiting, ${whole(rate)} ticks/s`;
      chip.element.title = sealed ? `${text}, sealed: ${sealed}` : text;
      chip.element.setAttribute("aria-label", chip.element.title);
    });
    for (const [p, chip] of this.chips) {
      if (p >= partitions.length) {
        chip.element.remove();
        this.chips.delete(p);
      }
    }
  }

  chip(p) {
    const chip = { element: placed(h("li", { class: "chip", "data-partition": p }, String(p)), p), owner: null };
    this.chips.set(p, chip);
    return chip;
  }

  move(chip, p, name) {
    const before = chip.owner === null || !chip.element.isConnected ? null : chip.element.getBoundingClientRect();
    chip.owner = name;
    chip.element.className = name ? `chip owner-${this.colour(name)}` : "chip orphan";
    const strip = this.rows.get(name).strip;
    const after = [...strip.querySelectorAll(".chip")].find((other) => Number(other.dataset.partition) > p);
    strip.insertBefore(chip.element, after ?? null);
    if (before === null) return;
    chip.element.classList.add("moved");
    setTimeout(() => chip.element.classList.remove("moved"), MOVED_MS);
    if (calm()) return;
    const here = chip.element.getBoundingClientRect();
    const from = `translate(${before.left - here.left}px, ${before.top - here.top}px)`;
    chip.element.animate([{ transform: from, zIndex: 2 }, { transform: "none", zIndex: 2 }], { duration: 700, easing: "ease-in-out" });
  }

  showMoves() {
    const groups = new Map();
    for (const [at, p, before, after] of this.shared.moves) {
      const key = JSON.stringify([at, before, after]);
      groups.set(key, [...(groups.get(key) ?? []), p]);
    }
    const key = JSON.stringify([...groups]);
    if (key === this.movesShown) return;
    this.movesShown = key;
    const rows = [...groups].slice(-8).reverse().map(([group, partitions]) => {
      const [at, before, after] = JSON.parse(group);
      return h("li", {}, h("time", {}, clock(at)), ` ${before} → ${after}: ${partitions.join(" ")}`);
    });
    this.moves.replaceChildren(...rows);
    if (!rows.length) this.moves.append(h("li", { class: "hint" }, "none since the console looks"));
  }

  showServer(server) {
    const limit = server.memory_max ? ` of ${bytes(server.memory_max)}` : ", no limit";
    const state = server.loading ? "loading its data" : server.role || "?";
    const parts = [
      `version ${server.version}, ${state}, up ${duration(server.uptime_s)}`,
      `memory ${bytes(server.memory)}${limit}`,
      `${whole(server.commands_per_s)} commands/s, ${whole(server.clients)} clients`,
      server.aof ? "append-only file on" : "append-only file off: a crash of the server loses data",
      ...(server.evicted ? [`${whole(server.evicted)} keys evicted: maxmemory-policy must be noeviction`] : []),
    ];
    say(this.server, parts.join("\n"));
  }

  colour(name) {
    if (!this.colours.has(name)) this.colours.set(name, this.colours.size % COLOURS);
    return this.colours.get(name);
  }
}

function placed(element, p) {
  element.style.gridColumn = String((p % COLUMNS) + 1);
  element.style.gridRow = String(Math.floor(p / COLUMNS) + 1);
  return element;
}
