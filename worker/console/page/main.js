// Which view is shown, and what all views share: the state of the line, the operator's token.

import { say, mark } from "./dom.js";
import { AssetView } from "./asset.js";
import { FleetView } from "./fleet.js";
import { Link, ask } from "./link.js";
import { RejectedView } from "./rejected.js";
import { TunerView } from "./tuner.js";
import { whole } from "./words.js";

const main = document.getElementById("main");
const shared = { about: {}, past: [], moves: [], fleet: null, token: keptToken() };
let view = null;

// The token comes in the part of the address that no server sees, and does not stay there.
function keptToken() {
  const found = location.hash.match(/^#operator=([\w-]+)/);
  if (found) {
    sessionStorage.setItem("operator", found[1]);
    history.replaceState(null, "", "#/");
  }
  return sessionStorage.getItem("operator") ?? "";
}

const link = new Link(onEvent, () => state("bad", "the console does not answer"));

function onEvent(name, told) {
  if (name === "waiting") onWaiting(told.why);
  if (name === "past") shared.past = told.moments;
  if (name === "fleet") onFleet(told);
  view?.[name]?.(told);
}

function onWaiting(why) {
  const box = document.getElementById("waiting");
  box.hidden = !why;
  say(box, why ? `Waiting for a fleet at ${shared.about.redis ?? "its Redis"}, namespace ${shared.about.namespace ?? ""}. ${why}` : "");
  if (why) state("warn", "waiting");
  mark(main, "stale", Boolean(why));
}

function onFleet(told) {
  const { rate, backlog, latency_ms: latency } = told.totals;
  shared.fleet = told;
  shared.past = [...shared.past, [told.at_ms, rate, backlog, latency.p50, latency.p99]].slice(-180);
  shared.moves = [...shared.moves, ...told.moves].slice(-40);
  const count = document.getElementById("rejected-count");
  count.hidden = !told.totals.rejected;
  say(count, whole(told.totals.rejected));
  state("good", "live");
}

function state(tone, text) {
  const element = document.getElementById("state");
  element.className = tone;
  say(element.querySelector("span"), text);
}

function route() {
  const [, name = "", rest = ""] = location.hash.match(/^#\/(\w*)\/?(.*)$/) ?? [];
  const asset = name === "assets" ? decoded(rest) : "";
  const kind = { assets: AssetView, rejected: RejectedView, tuner: TunerView }[name] ?? FleetView;
  link.watch(asset);
  if (view instanceof kind && view.show) view.show(asset);
  else {
    view?.close?.();
    main.replaceChildren();
    view = new kind(main, shared, asset);
  }
  for (const anchor of document.querySelectorAll("nav a")) {
    const here = anchor.getAttribute("href") === `#/${kind === FleetView ? "" : name}`;
    here ? anchor.setAttribute("aria-current", "page") : anchor.removeAttribute("aria-current");
  }
  if (shared.fleet) view.fleet?.(shared.fleet);
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

async function begin() {
  try {
    shared.about = await ask("/about");
  } catch {
    state("bad", "the console does not answer");
  }
  say(document.getElementById("place"), `${shared.about.namespace ?? ""} at ${shared.about.redis ?? ""}`);
  route();
  addEventListener("hashchange", route);
}

begin();
