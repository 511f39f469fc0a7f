// Paint where a picture should change: the mask lies over the picture, pixel on pixel.

import { at, copy, say, send, sendBytes, typing } from "./page.js";
import { Viewer } from "./viewer.js";

const MOST = 24e6; // pixels of the canvas; a larger picture is painted smaller and its mask saved in its own size
const COLOUR = "#ff2f7d";

const find = (name) => document.getElementById(name);
const stage = find("stage");
const { id, ask: asked } = stage.dataset;
let space = false;
const viewer = new Viewer(stage, { drags: (event) => space || event.button === 1 });
const { width, height } = viewer;
const share = Math.min(1, Math.sqrt(MOST / (width * height)));
const canvas = document.createElement("canvas");
canvas.className = "mask";
canvas.width = Math.max(1, Math.round(width * share));
canvas.height = Math.max(1, Math.round(height * share));
viewer.sheet.append(canvas);
const context = canvas.getContext("2d");
const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
stage.append(tip);

let done = []; // what was painted, in order
let undone = [];
let current = null;
let tool = "brush";
let saved = null; // the id of the mask as it is now
let strokes = 0, version = 0; // count what is painted, and that or what is written: an answer about something older is dropped
let painted = 0; // share of the picture
let free = true; // whether leaving loses nothing

const brush = () => Math.max(1, (Number(find("size").value) / 100) ** 2 * Math.max(width, height) * 0.35);

// Painting.
function path(points) {
  context.beginPath();
  points.forEach(([x, y], index) => (index ? context.lineTo(x, y) : context.moveTo(x, y)));
}
function apply(act) {
  context.globalCompositeOperation = act.erase ? "destination-out" : "source-over";
  context.fillStyle = context.strokeStyle = COLOUR;
  if (act.kind === "stroke") {
    context.lineWidth = act.size;
    context.lineCap = context.lineJoin = "round";
    path(act.points.length > 1 ? act.points : [act.points[0], act.points[0]]);
    context.stroke();
  } else if (act.kind === "shape") {
    path(act.points);
    context.closePath();
    context.fill();
  } else if (act.kind === "invert") {
    context.globalCompositeOperation = "xor";
    context.fillRect(0, 0, canvas.width, canvas.height);
  } else if (act.kind === "grow") {
    grow(act.by);
  }
  context.globalCompositeOperation = "source-over";
}
// Discs of 1, 2, 4 ... pixels, one after the other, add up to a disc of their sum, and leave no hole however thin a line is.
function grow(by) {
  for (let left = by, radius = 1; left > 0; radius *= 2) {
    const step = Math.min(left, radius);
    const before = new OffscreenCanvas(canvas.width, canvas.height);
    before.getContext("2d").drawImage(canvas, 0, 0);
    const turns = Math.max(8, Math.min(32, step * 4));
    for (let turn = 0; turn < turns; turn++) {
      const angle = (turn / turns) * 2 * Math.PI;
      context.drawImage(before, step * Math.cos(angle), step * Math.sin(angle));
    }
    left -= step;
  }
}
function repaint() {
  context.clearRect(0, 0, canvas.width, canvas.height);
  done.forEach(apply);
  if (current) apply(current);
}
function add(act) {
  done.push(act);
  undone = [];
  apply(act);
  settle();
}
let due = 0;
function settle() {
  strokes += 1;
  version += 1;
  saved = null;
  free = done.length === 0;
  find("undo").disabled = !done.length;
  find("redo").disabled = !undone.length;
  forgetPrice();
  clearTimeout(due);
  due = setTimeout(measure, 60);
}
function measure() {
  const small = new OffscreenCanvas(128, 128);
  const pen = small.getContext("2d");
  pen.drawImage(canvas, 0, 0, 128, 128);
  const { data } = pen.getImageData(0, 0, 128, 128);
  let sum = 0;
  for (let index = 3; index < data.length; index += 4) sum += data[index];
  painted = sum / 255 / (128 * 128);
  const words = painted === 0 ? "Nothing is painted yet" : painted < 0.01 ? "Under 1% is painted" : `${Math.round(painted * 100)}% is painted`;
  find("state").textContent = words;
  const hand = find("hand-over");
  if (hand) hand.disabled = painted === 0;
}

// The pointer.
const here = (event) => viewer.on(event).map((value) => value * share);
const inside = ([x, y]) => [Math.min(canvas.width, Math.max(0, x)), Math.min(canvas.height, Math.max(0, y))];
stage.addEventListener("pointerdown", (event) => {
  if (space || event.button !== 0) return;
  if (viewer.pointers.size > 1) {
    current = null; // a second finger: it is moved, and not painted
    repaint();
    stage.classList.add("moving");
    return;
  }
  if (document.activeElement !== stage) document.activeElement?.blur(); // keys go to the picture again
  stage.setPointerCapture(event.pointerId);
  const start = here(event);
  if (tool === "brush" || tool === "eraser") current = { kind: "stroke", erase: tool === "eraser", size: brush() * share, points: [start] };
  else current = { kind: "shape", erase: false, box: tool === "rectangle", start: inside(start), points: [inside(start)] };
  if (current.kind === "stroke") apply(current);
});
stage.addEventListener("pointermove", (event) => {
  showTip(event);
  if (!current || viewer.pointers.size > 1) return;
  if (current.kind === "stroke") {
    const more = (event.getCoalescedEvents?.() ?? []).length ? event.getCoalescedEvents() : [event];
    for (const one of more) {
      const last = current.points.at(-1), next = here(one);
      if (Math.hypot(next[0] - last[0], next[1] - last[1]) < 0.5) continue;
      current.points.push(next);
      apply({ ...current, points: [last, next] });
    }
    return;
  }
  const [x, y] = inside(here(event));
  if (current.box) {
    const [left, top] = current.start;
    current.points = [[left, top], [x, top], [x, y], [left, y]].map((place) => place.map(Math.round));
  } else current.points.push([x, y]);
  repaint();
});
for (const kind of ["pointerup", "pointercancel"]) {
  stage.addEventListener(kind, () => {
    if (!current) return;
    const act = current;
    current = null;
    if (kind === "pointercancel" || (act.kind === "shape" && act.points.length < 3)) repaint();
    else {
      done.push(act);
      undone = [];
      settle();
    }
  });
}
stage.addEventListener("pointerleave", () => { tip.hidden = true; });
function showTip(event) {
  const round = tool === "brush" || tool === "eraser";
  tip.hidden = !round || space;
  if (tip.hidden) return;
  const wide = brush() * viewer.scale, [x, y] = viewer.point(event);
  tip.style.width = tip.style.height = `${wide}px`;
  tip.style.transform = `translate(${x - wide / 2}px, ${y - wide / 2}px)`;
}

// Tools and keys.
const tools = [...find("tools").children];
function take(name) {
  tool = name;
  for (const one of tools) {
    const on = one.dataset.tool === name;
    one.setAttribute("aria-checked", on);
    one.tabIndex = on ? 0 : -1;
  }
}
tools.forEach((one, index) => {
  one.addEventListener("click", () => take(one.dataset.tool));
  one.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = tools[(index + step + tools.length) % tools.length];
    take(next.dataset.tool);
    next.focus();
  });
});
function undo() {
  if (!done.length) return;
  undone.push(done.pop());
  repaint();
  settle();
}
function redo() {
  if (!undone.length) return;
  const act = undone.pop();
  done.push(act);
  apply(act);
  settle();
}
find("undo").addEventListener("click", undo);
find("redo").addEventListener("click", redo);
find("grow").addEventListener("click", () => { if (done.length) add({ kind: "grow", by: Math.max(2, Math.round(Math.max(canvas.width, canvas.height) / 128)) }); });
find("invert").addEventListener("click", () => add({ kind: "invert" }));
find("numbers").addEventListener("submit", (event) => {
  event.preventDefault();
  const [left, top, right, bottom] = ["left", "top", "right", "bottom"].map((name) => Number(event.target.elements[name].value));
  if (!(left < right && top < bottom && right <= width && bottom <= height)) {
    say(`A box lies inside the picture, which has ${width} by ${height} pixels: left before right, top before bottom.`);
    return;
  }
  add({ kind: "shape", erase: false, points: [[left, top], [right, top], [right, bottom], [left, bottom]].map(([x, y]) => [x * share, y * share]) });
});
document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z" && !typing(event)) {
    event.preventDefault();
    if (event.shiftKey) redo();
    else undo();
    return;
  }
  if (typing(event) || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === " " && [stage, document.body].includes(event.target)) {
    event.preventDefault();
    space = true;
    stage.classList.add("panning");
  }
  const letter = { b: "brush", r: "rectangle", l: "lasso", e: "eraser" }[event.key];
  if (letter) take(letter);
  if (event.key === "[" || event.key === "]") find("size").value = Number(find("size").value) + (event.key === "]" ? 4 : -4);
  if (event.key === "Escape") find("back").click();
});
document.addEventListener("keyup", (event) => {
  if (event.key === " ") {
    space = false;
    stage.classList.remove("panning");
  }
});

// Saving: a worker makes the PNG. In the page itself the browser would encode it when it is idle, which in a window that is
// hidden or busy is seconds later. It is loaded with the page, since the gallery may end before it is needed.
const worker = new Worker(at("static/mask.js"));
const unable = "The browser could not make a picture of what is painted; nothing was sent. Reload the page.";
let broken = false;
worker.onerror = () => { broken = true; };
async function png() {
  if (broken) throw new Error(unable);
  const bitmap = await createImageBitmap(canvas);
  return new Promise((done, failed) => {
    worker.onmessage = ({ data }) => (data.png ? done(data.png) : failed(new Error(data.problem)));
    worker.onerror = () => failed(new Error(unable));
    worker.postMessage({ bitmap, width, height, smooth: share < 1 }, [bitmap]);
  });
}
let saving = null, told = null, sent = 0;
async function save() {
  if (saved) return saved;
  saving ||= (async () => {
    sent = strokes;
    clearTimeout(due);
    measure();
    if (painted === 0) throw new Error("Paint where the picture should change first.");
    told = await sendBytes(`masks/${id}${asked ? `?ask=${asked}` : ""}`, await png());
    return told.id;
  })();
  try {
    const mask = await saving;
    if (sent !== strokes) {
      if (!asked) throw new Error("You painted on meanwhile; do it once more.");
      told.words = "Your assistant has what was painted when it was handed over, without what you painted since.";
      return mask;
    }
    saved = mask;
    free = true;
    return saved;
  } finally {
    saving = null;
  }
}
addEventListener("beforeunload", (event) => { if (!free) event.preventDefault(); });

find("hand-over")?.addEventListener("click", async (event) => {
  const button = event.target;
  button.disabled = true;
  try {
    await save();
    button.textContent = told.waiting ? "Your assistant has it" : "Kept for your assistant";
    find("kept").hidden = false;
    find("kept-words").textContent = told.words;
    find("kept").scrollIntoView({ block: "nearest" });
  } catch (error) {
    button.disabled = false;
    say(error.message);
  }
});
find("copy-kept")?.addEventListener("click", () => copy(told.id, "The mask's id"));
// A file needs no gallery: it is the way out when this one has ended. edit_region takes its path as well as an id.
find("save-mask").addEventListener("click", async () => {
  try {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await png());
    link.download = `mask of ${id}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    say("Saved. edit_region takes the path of the file as mask.");
  } catch (error) {
    say(error.message);
  }
});
find("copy-mask")?.addEventListener("click", async () => {
  try {
    copy(await save(), "The mask's id");
  } catch (error) {
    say(error.message);
  }
});

// The edit: first its price, then a yes, and each yes pays once.
const edit = find("edit");
let price = null;
function forgetPrice() {
  price = null;
  if (!edit) return;
  find("quote").hidden = true;
  find("make").hidden = true;
}
const fields = (mask) => ({ ...Object.fromEntries(new FormData(edit)), image: id, mask });
edit?.addEventListener("input", () => { version += 1; forgetPrice(); });
edit?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = find("price-button");
  button.disabled = true;
  try {
    const mask = await save();
    const mine = version, wanted = fields(mask);
    const quote = await send("edits/quote", wanted);
    if (mine !== version) throw new Error("It changed meanwhile; show the price again.");
    price = { ...quote, wanted };
    find("quote").textContent = price.refused || price.summary;
    find("quote").hidden = false;
    const make = find("make");
    make.hidden = Boolean(price.refused);
    make.disabled = false;
    make.textContent = price.free ? "Make it (free: emulated)" : price.max_cost_usd === null ? "Make it (price unknown)" : `Make it for up to $${price.max_cost_usd.toFixed(2)}`;
    make.scrollIntoView({ block: "nearest" });
    make.focus();
  } catch (error) {
    say(error.message);
  } finally {
    button.disabled = false;
  }
});
find("make")?.addEventListener("click", async () => {
  if (!price) return;
  const make = find("make"), { key, wanted, max_cost_usd: most, free: nothing } = price;
  make.disabled = true;
  find("working").hidden = false;
  find("progress").removeAttribute("value");
  find("progress-words").textContent = "Gemini draws …";
  try {
    const made = await send("edits", { ...wanted, key, ...(most !== null && !nothing ? { max_cost_usd: most } : {}) });
    free = true;
    location.assign(at(made.go));
  } catch (error) {
    say(error.message, { stay: true });
    make.disabled = false; // the same key: whatever was paid for is not paid for again
  } finally {
    find("working").hidden = true;
  }
});
document.addEventListener("progress", ({ detail }) => {
  if (!price || detail.key !== price.key) return;
  find("progress").max = detail.total;
  find("progress").value = detail.done;
  find("progress-words").textContent = detail.words;
});
find("back").addEventListener("click", () => sessionStorage.setItem("painting", id));
