// The line to the console: events as they come, again after every break, none while nobody looks at the page.

const AGAIN_MS = 2000;

export class Link {
  constructor(onEvent, onBreak) {
    this.onEvent = onEvent;
    this.onBreak = onBreak;
    this.asset = "";
    this.source = null;
    this.again = null;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.close() : this.open()));
  }

  watch(asset) {
    if (asset === this.asset && this.source) return;
    this.asset = asset;
    this.open();
  }

  open() {
    this.close();
    const source = new EventSource(this.asset ? `/events?asset=${encodeURIComponent(this.asset)}` : "/events");
    for (const name of ["waiting", "past", "fleet", "asset"]) {
      source.addEventListener(name, (event) => this.onEvent(name, JSON.parse(event.data)));
    }
    source.addEventListener("error", () => {
      this.onBreak();
      if (source.readyState === EventSource.CLOSED) this.again = setTimeout(() => this.open(), AGAIN_MS);
    });
    this.source = source;
  }

  close() {
    clearTimeout(this.again);
    this.source?.close();
    this.source = null;
  }
}

export async function ask(path, options) {
  const reply = await fetch(path, options);
  const told = await reply.json();
  if (!reply.ok) throw new Error(told.error);
  return told;
}
