// An operator's order: asks who and why, sends it, and says what became of it.

import { h, say } from "./dom.js";
import { ask } from "./link.js";

export const mayOrder = (shared) => Boolean(shared.token && shared.about.operator);

export function orderButton(shared, label, order, more, done) {
  return h("button", { type: "button", onclick: () => open(shared, label, order, more, done) }, label);
}

function open(shared, label, order, more, done) {
  const asked = more();
  if (asked === null) return;
  const actor = h("input", { id: "actor", required: true, maxlength: 500, autocomplete: "username", value: sessionStorage.getItem("actor") ?? "" });
  const reason = h("input", { id: "reason", required: true, maxlength: 500, autocomplete: "off" });
  const answer = h("p", { class: "answer", role: "status" });
  const send = h("button", { class: "strong", type: "submit" }, label);
  const dialog = h("dialog", { "aria-labelledby": "order-title" },
    h("form", { onsubmit: submit },
      h("h2", { id: "order-title" }, asked.title ?? label),
      h("label", { for: "actor" }, "Who"), actor,
      h("label", { for: "reason" }, "Why"), reason,
      answer,
      h("div", { class: "buttons" }, h("button", { type: "button", onclick: () => dialog.close() }, "Close"), send),
    ),
  );
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  (actor.value ? reason : actor).focus();

  async function submit(event) {
    event.preventDefault();
    sessionStorage.setItem("actor", actor.value);
    send.disabled = true;
    say(answer, "asking …");
    const body = JSON.stringify({ order, actor: actor.value, reason: reason.value, ...asked.fields });
    try {
      const headers = { "Content-Type": "application/json", "X-Operator-Token": shared.token };
      say(answer, (await ask("/orders", { method: "POST", headers, body })).told);
      send.remove();
      done();
    } catch (error) {
      say(answer, error.message);
      send.disabled = false;
    }
  }
}
