"use strict";
const svg = document.getElementById("drawing");
const card = document.getElementById("card");
const whole = svg.viewBox.baseVal;
const all = { x: whole.x, y: whole.y, width: whole.width, height: whole.height };
const view = { x: 0, y: 0, scale: 1 };

function show() {
  svg.setAttribute("viewBox", `${view.x} ${view.y} ${svg.clientWidth / view.scale} ${svg.clientHeight / view.scale}`);
  svg.dataset.scale = view.scale.toFixed(3);
}

// All of the drawing between title and legend; `least` keeps a long one readable, from its top on.
function fit(least) {
  const above = document.querySelector("header").offsetHeight;
  const below = document.querySelector("footer").offsetHeight;
  const height = Math.max(svg.clientHeight - above - below, 80);
  const across = svg.clientWidth / all.width;
  const scale = Math.min(across, height / all.height, 1.25);
  view.scale = Math.max(scale, Math.min(least, across));
  view.x = all.x + (all.width - svg.clientWidth / view.scale) / 2;
  const spare = Math.max(height / view.scale - all.height, 0) / 2;
  view.y = all.y - above / view.scale - spare;
  show();
}

function zoom(factor, x = svg.clientWidth / 2, y = svg.clientHeight / 2) {
  const scale = Math.min(Math.max(view.scale * factor, 0.05), 8);
  view.x += x / view.scale - x / scale;
  view.y += y / view.scale - y / scale;
  view.scale = scale;
  show();
}

function pan(x, y) {
  view.x -= x / view.scale;
  view.y -= y / view.scale;
  show();
}

svg.addEventListener("wheel", (event) => {
  event.preventDefault();
  hide();
  zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), event.clientX, event.clientY);
}, { passive: false });

const touches = new Map();
svg.addEventListener("pointerdown", (event) => {
  touches.set(event.pointerId, event);
  svg.setPointerCapture(event.pointerId);
  svg.classList.add("held");
});
svg.addEventListener("pointermove", (event) => {
  const before = touches.get(event.pointerId);
  if (!before) return;
  touches.set(event.pointerId, event);
  if (touches.size === 1) {
    pan(event.clientX - before.clientX, event.clientY - before.clientY);
  } else if (touches.size === 2) {
    const other = [...touches.values()].find((touch) => touch.pointerId !== event.pointerId);
    const distance = (touch) => Math.hypot(touch.clientX - other.clientX, touch.clientY - other.clientY);
    zoom(distance(event) / Math.max(distance(before), 1), other.clientX, other.clientY);
  }
});
for (const kind of ["pointerup", "pointercancel"]) {
  svg.addEventListener(kind, (event) => {
    touches.delete(event.pointerId);
    svg.classList.toggle("held", touches.size > 0);
  });
}
svg.addEventListener("dblclick", (event) => zoom(1.6, event.clientX, event.clientY));
document.getElementById("in").addEventListener("click", () => zoom(1.3));
document.getElementById("out").addEventListener("click", () => zoom(1 / 1.3));
document.getElementById("fit").addEventListener("click", () => fit(0));
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const step = 60;
  const keys = {
    "+": () => zoom(1.3), "=": () => zoom(1.3), "-": () => zoom(1 / 1.3), "0": () => fit(0), "Escape": hide,
    "ArrowLeft": () => pan(step, 0), "ArrowRight": () => pan(-step, 0),
    "ArrowUp": () => pan(0, step), "ArrowDown": () => pan(0, -step),
  };
  if (keys[event.key]) {
    event.preventDefault();
    keys[event.key]();
  }
});

function hide() {
  card.hidden = true;
  svg.classList.remove("lit");
  for (const element of svg.querySelectorAll(".on")) element.classList.remove("on");
}

function tell(element) {
  hide();
  for (const section of card.children) section.hidden = section.id !== `about-${element.dataset.about}`;
  const node = element.closest(".node");
  node.classList.add("on");
  for (const line of svg.querySelectorAll(`[data-from="${node.id}"], [data-to="${node.id}"]`)) {
    line.classList.add("on");
    document.getElementById(line.dataset.from).classList.add("on");
    document.getElementById(line.dataset.to).classList.add("on");
  }
  if (element.dataset.same) {
    for (const part of svg.querySelectorAll(`[data-same="${element.dataset.same}"]`)) {
      part.classList.add("on");
      part.closest(".node").classList.add("on");
    }
  }
  svg.classList.add("lit");
  card.hidden = false;
  const box = node.getBoundingClientRect();
  const right = box.right + 14;
  const left = right + card.offsetWidth < innerWidth - 8 ? right : box.left - 14 - card.offsetWidth;
  card.style.left = `${Math.max(8, Math.min(left, innerWidth - card.offsetWidth - 8))}px`;
  card.style.top = `${Math.max(8, Math.min(box.top, innerHeight - card.offsetHeight - 8))}px`;
}

for (const element of svg.querySelectorAll("[data-about]")) {
  element.addEventListener("pointerenter", () => touches.size || tell(element));
  element.addEventListener("pointerleave", hide);
  element.addEventListener("focus", () => tell(element));
  element.addEventListener("blur", hide);
}

const first = () => fit(0.6);
addEventListener("resize", first);
addEventListener("beforeprint", () => svg.setAttribute("viewBox", `${all.x} ${all.y} ${all.width} ${all.height}`));
addEventListener("afterprint", show);
first();
svg.dataset.ready = "true";
