// A picture that is zoomed and moved: wheel, pinch, drag, keys and buttons.

const LARGEST = 32; // screen pixels for one of the picture's

export class Viewer {
  // `width` and `height` are the picture's; layers are put into `sheet`, which has its size.
  constructor(stage, { drags = () => true } = {}) {
    this.stage = stage;
    this.width = Number(stage.dataset.width);
    this.height = Number(stage.dataset.height);
    this.drags = drags;
    this.sheet = document.createElement("div");
    this.sheet.className = "sheet";
    this.sheet.style.width = `${this.width}px`;
    this.sheet.style.height = `${this.height}px`;
    this.changed = new EventTarget();
    this.pointers = new Map();
    this.fitted = true;
    const picture = stage.querySelector("img");
    picture.className = "";
    picture.draggable = false;
    this.picture = picture;
    this.sheet.append(picture);
    stage.prepend(this.sheet);
    const bar = document.getElementById("zoom");
    bar.hidden = false;
    bar.addEventListener("pointerdown", (event) => event.stopPropagation());
    const click = (id, act) => document.getElementById(id).addEventListener("click", act);
    click("in", () => this.zoom(1.5));
    click("out", () => this.zoom(1 / 1.5));
    click("fit", () => this.fit());
    click("full", () => this.full());
    this.output = document.getElementById("scale");
    stage.addEventListener("wheel", (event) => {
      event.preventDefault();
      const [x, y] = this.point(event);
      const steps = event.deltaY * (event.deltaMode === 1 ? 16 : 1);
      this.zoom(Math.exp(-steps * (event.ctrlKey ? 0.01 : 0.0016)), x, y);
    }, { passive: false });
    stage.addEventListener("pointerdown", (event) => this.down(event));
    stage.addEventListener("pointermove", (event) => this.move(event));
    for (const kind of ["pointerup", "pointercancel"]) stage.addEventListener(kind, (event) => this.up(event));
    document.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => { if (this.fitted) this.fit(); else this.show(); }).observe(stage);
    this.fit();
  }

  get least() {
    return Math.min(this.stage.clientWidth / this.width, this.stage.clientHeight / this.height, 1 / devicePixelRatio);
  }

  point(event) {
    const place = this.stage.getBoundingClientRect();
    return [event.clientX - place.left, event.clientY - place.top];
  }

  // Where on the picture, in its pixels.
  on(event) {
    const [x, y] = this.point(event);
    return [(x - this.x) / this.scale, (y - this.y) / this.scale];
  }

  fit() {
    this.scale = this.least;
    this.x = (this.stage.clientWidth - this.width * this.scale) / 2;
    this.y = (this.stage.clientHeight - this.height * this.scale) / 2;
    this.fitted = true;
    this.show();
  }

  full(x, y) {
    this.zoom(1 / devicePixelRatio / this.scale, x, y);
  }

  zoom(factor, x = this.stage.clientWidth / 2, y = this.stage.clientHeight / 2) {
    const scale = Math.min(LARGEST, Math.max(this.least / 2, this.scale * factor));
    this.x = x - (x - this.x) * (scale / this.scale);
    this.y = y - (y - this.y) * (scale / this.scale);
    this.scale = scale;
    this.fitted = false;
    this.show();
  }

  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.fitted = false;
    this.show();
  }

  show() {
    const wide = this.width * this.scale, high = this.height * this.scale;
    const { clientWidth, clientHeight } = this.stage;
    const held = (at, size, room) => (size <= room ? (room - size) / 2 : Math.min(room / 2, Math.max(room / 2 - size, at)));
    this.x = held(this.x, wide, clientWidth);
    this.y = held(this.y, high, clientHeight);
    this.sheet.style.transform = `translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
    this.sheet.classList.toggle("close", this.scale * devicePixelRatio >= 2);
    this.output.textContent = `${Math.round(this.scale * devicePixelRatio * 100)}%`;
    this.changed.dispatchEvent(new Event("view"));
  }

  down(event) {
    this.pointers.set(event.pointerId, this.point(event));
    if (!this.drags(event) && this.pointers.size < 2) return;
    this.stage.setPointerCapture(event.pointerId);
    this.stage.classList.add("moving");
  }

  move(event) {
    const old = this.pointers.get(event.pointerId);
    if (!old) return;
    const now = this.point(event);
    if (this.pointers.size === 2) {
      const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
      const far = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]) || 1;
      this.pan((now[0] - old[0]) / 2, (now[1] - old[1]) / 2);
      this.zoom(far(now, other) / far(old, other), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    } else if (this.stage.classList.contains("moving")) {
      this.pan(now[0] - old[0], now[1] - old[1]);
    }
    this.pointers.set(event.pointerId, now);
  }

  up(event) {
    this.pointers.delete(event.pointerId);
    this.stage.classList.remove("moving");
  }

  key(event) {
    if (event.defaultPrevented || event.target.matches("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = event.shiftKey ? 240 : 60;
    const act = {
      "+": () => this.zoom(1.5), "=": () => this.zoom(1.5), "-": () => this.zoom(1 / 1.5), 0: () => this.fit(), 1: () => this.full(),
      ArrowLeft: () => this.pan(step, 0), ArrowRight: () => this.pan(-step, 0), ArrowUp: () => this.pan(0, step), ArrowDown: () => this.pan(0, -step),
    }[event.key];
    if (!act || (event.key.startsWith("Arrow") && this.fitted)) return;
    event.preventDefault();
    act();
  }
}
