// One picture: zoom, before and after, notes, and the way to its neighbours.

import { ask, at, copy, say, send, typing } from "./page.js";
import { Viewer } from "./viewer.js";

const stage = document.getElementById("stage");
const id = stage.dataset.id;
const find = (name) => document.getElementById(name);

if (stage.dataset.shown) {
  const viewer = new Viewer(stage);
  viewer.picture.addEventListener("dblclick", (event) => {
    const [x, y] = viewer.point(event);
    if (viewer.fitted) viewer.full(x, y);
    else viewer.fit();
  });
  if (stage.dataset.before) compare(viewer, stage.dataset.before);
}

function compare(viewer, beforeId) {
  const slider = find("slider"), difference = find("difference"), slide = find("slide"), label = find("slide-label");
  const before = new Image();
  const divider = document.createElement("div");
  divider.className = "divider";
  divider.hidden = true;
  stage.append(divider);
  before.alt = "The picture before";
  before.draggable = false;
  let mode = "";
  before.onerror = () => {
    if (mode) set("");
    say("The picture before cannot be shown: its file is gone, or no browser draws it.");
  };
  before.onload = () => {
    const same = Math.abs(before.naturalWidth / before.naturalHeight - viewer.width / viewer.height) < 0.01;
    if (!same) {
      before.style.objectFit = "contain";
    }
  };
  const cut = () => {
    if (mode !== "slider") return;
    const share = Number(slide.value) / 100;
    // The before lies on top of the after and is cut off right of the divider.
    before.style.clipPath = `inset(0 ${100 - share * 100}% 0 0)`;
    divider.style.left = `${viewer.x + viewer.width * viewer.scale * share}px`;
  };
  function set(wanted) {
    mode = wanted;
    if (mode && !before.src) before.src = at(`files/${beforeId}`);
    if (mode) viewer.sheet.append(before);
    else before.remove();
    before.classList.toggle("differing", mode === "difference");
    viewer.sheet.classList.toggle("difference", mode === "difference");
    if (mode !== "slider") before.style.clipPath = "";
    divider.hidden = mode !== "slider";
    label.hidden = mode !== "slider";
    slider.setAttribute("aria-pressed", mode === "slider");
    difference.setAttribute("aria-pressed", mode === "difference");
    if (mode === "difference") measure();
    cut();
  }
  slider.addEventListener("click", () => set(mode === "slider" ? "" : "slider"));
  difference.addEventListener("click", () => set(mode === "difference" ? "" : "difference"));
  let told = null;
  async function measure() {
    try {
      told ??= (await ask(`api/differences/${id}`)).words;
    } catch (error) {
      told = error.message; // such as that the two have different sizes
    }
    if (mode === "difference") say(told);
  }
  slide.addEventListener("input", cut);
  viewer.changed.addEventListener("view", cut);
  divider.addEventListener("pointerdown", (event) => {
    event.stopPropagation();
    divider.setPointerCapture(event.pointerId);
  });
  divider.addEventListener("pointermove", (event) => {
    if (!divider.hasPointerCapture(event.pointerId)) return;
    const [x] = viewer.point(event);
    slide.value = Math.min(100, Math.max(0, ((x - viewer.x) / (viewer.width * viewer.scale)) * 100));
    cut();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "c" && !typing(event) && !event.ctrlKey && !event.metaKey) set({ "": "slider", slider: "difference", difference: "" }[mode]);
  });
  if (new URLSearchParams(location.search).get("compare") === "slider") set("slider");
}

// Notes are kept as they are made.
const notes = find("notes");
async function keep() {
  const fields = Object.fromEntries(new FormData(notes));
  delete fields.form_token;
  try {
    const kept = await send(`pictures/${id}/notes`, fields);
    notes.elements.tags.value = kept.tags.join(", ");
    say("Saved.");
  } catch (error) {
    say(error.message);
  }
}
notes.addEventListener("submit", (event) => { event.preventDefault(); keep(); });
notes.addEventListener("change", (event) => { if (event.target.name === "rating") keep(); });

for (const form of document.querySelectorAll('form[action$="/folder"]')) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await send(`pictures/${id}/folder`, {});
    } catch (error) {
      say(error.message);
    }
  });
}

find("copies").hidden = false;
for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", () => copy(button.dataset.copy, button.dataset.what));

// The neighbours in the grid that one came from.
const around = JSON.parse(sessionStorage.getItem("around") || "[]");
const place = around.indexOf(id);
const neighbours = { previous: around[place - 1], next: around[place + 1] };
for (const [name, other] of Object.entries(neighbours)) {
  if (place < 0 || !other) continue;
  find(name).href = at(`pictures/${other}`);
  find(name).hidden = false;
}
const back = find("back");
back.href = at("") + (sessionStorage.getItem("grid") || "");

document.addEventListener("keydown", (event) => {
  if (typing(event) || event.ctrlKey || event.metaKey || event.altKey) {
    if (event.key === "Escape" && typing(event)) stage.focus();
    return;
  }
  if (event.defaultPrevented) return; // the arrows move what is larger than its place
  if (event.key.startsWith("Arrow") && event.target.matches("input, select, textarea")) return; // they move the slider, or the stars
  if (event.key === "Escape") location.assign(back.href);
  else if (event.key === "ArrowLeft" && neighbours.previous && place > 0) location.replace(find("previous").href);
  else if (event.key === "ArrowRight" && neighbours.next && place >= 0) location.replace(find("next").href);
  else if (event.key === "/") {
    event.preventDefault();
    location.assign(`${back.href}#query`);
  }
});
