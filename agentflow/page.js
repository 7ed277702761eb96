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
});
svg.addEventListener("pointermove", (event) => {
  const before = touches.get(event.pointerId);
  if (!before) return;
  touches.set(event.pointerId, event);
  if (!svg.classList.contains("held")) {
    hide();
    svg.classList.add("held");
    svg.setPointerCapture(event.pointerId);
  }
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

let told = null;

function hide() {
  told = null;
  card.hidden = true;
  svg.classList.remove("lit");
  for (const element of svg.querySelectorAll(".on")) element.classList.remove("on");
}

// Light up a node with its lines and what they lead to, and tell about it, or about a part of it.
function tell(element) {
  hide();
  told = element;
  const node = element.closest(".node");
  node.classList.add("on");
  for (const line of svg.querySelectorAll(`[data-from="${node.id}"], [data-to="${node.id}"]`)) {
    line.classList.add("on");
    document.getElementById(line.dataset.from).classList.add("on");
    document.getElementById(line.dataset.to).classList.add("on");
  }
  for (const part of element.dataset.same ? svg.querySelectorAll(`[data-same="${element.dataset.same}"]`) : []) {
    part.classList.add("on");
    part.closest(".node").classList.add("on");
  }
  svg.classList.add("lit");
  for (const section of card.children) section.hidden = section.id !== `about-${element.dataset.about}`;
  card.hidden = false;
  place(node.getBoundingClientRect());
}

// Put the card beside the node or in a corner: where it covers the fewest of the nodes that are lit.
function place(box) {
  const { offsetWidth: width, offsetHeight: height } = card;
  const lit = [...svg.querySelectorAll(".node.on")].map((node) => node.getBoundingClientRect());
  const covered = ([x, y]) => lit.filter(
    (r) => r.left < x + width && x < r.right && r.top < y + height && y < r.bottom).length;
  const right = innerWidth - width - 16;
  const bottom = innerHeight - height - 60;
  const places = [[box.right + 14, box.top], [box.left - 14 - width, box.top], [right, 16], [right, bottom], [16, bottom]]
    .map(([x, y]) => [Math.max(8, Math.min(x, right + 8)), Math.max(8, Math.min(y, innerHeight - height - 8))]);
  const [x, y] = places.reduce((best, next) => (covered(next) < covered(best) ? next : best));
  card.style.left = `${x}px`;
  card.style.top = `${y}px`;
}

svg.addEventListener("pointerover", (event) => {
  const element = event.target.closest("[data-about]");
  if (element === told || svg.classList.contains("held")) return;
  if (element) tell(element);
  else hide();
});
svg.addEventListener("pointerleave", hide);
svg.addEventListener("focusin", (event) => tell(event.target.closest("[data-about]")));
svg.addEventListener("focusout", hide);

const first = () => fit(0.8);
addEventListener("resize", first);
addEventListener("beforeprint", () => svg.setAttribute("viewBox", `${all.x} ${all.y} ${all.width} ${all.height}`));
addEventListener("afterprint", show);
first();
svg.dataset.ready = "true";
