// A mask, painted with a brush over the picture that is to change, or chosen as a file.
// What is painted stays while the page is open, until another picture comes.
const paint = document.createElement("canvas");
const pen = paint.getContext("2d");
const state = { picture: null, painted: false, file: null, brush: 48, erases: false };
// Longest side of the mask: the server scales it to the picture.
const MAX_SIDE = 1024;
let last = null;
let changed = () => {};

/** Where the pointer is, in the mask's own pixels. */
function at(event) {
  const box = paint.getBoundingClientRect();
  const scale = paint.width / box.width;
  return { x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale, scale };
}
function stroke(event) {
  const to = at(event);
  pen.globalCompositeOperation = state.erases ? "destination-out" : "source-over";
  pen.strokeStyle = "#e0245e";
  pen.lineCap = pen.lineJoin = "round";
  pen.lineWidth = state.brush * to.scale;
  pen.beginPath();
  pen.moveTo((last ?? to).x, (last ?? to).y);
  pen.lineTo(to.x, to.y);
  pen.stroke();
  last = to;
}
paint.addEventListener("pointerdown", (event) => {
  if (event.button) return;
  paint.setPointerCapture(event.pointerId);
  stroke(event);
});
paint.addEventListener("pointermove", (event) => { if (last) stroke(event); });
paint.addEventListener("lostpointercapture", () => {
  last = null;
  state.painted = pen.getImageData(0, 0, paint.width, paint.height).data.some((value, i) => i % 4 === 3 && value);
  state.file = null;
  changed();
});

function clear() {
  pen.clearRect(0, 0, paint.width, paint.height);
  state.painted = false;
  state.file = null;
  changed();
}

/** The brush, the picture under it, and what else a mask may come from. */
export function painter({ el, t }, picture) {
  const image = el("img", { alt: "", src: URL.createObjectURL(picture) });
  image.addEventListener("load", () => {
    URL.revokeObjectURL(image.src);
    if (state.picture === picture) return;
    const scale = Math.min(1, MAX_SIDE / Math.max(image.naturalWidth, image.naturalHeight));
    paint.width = Math.round(image.naturalWidth * scale);
    paint.height = Math.round(image.naturalHeight * scale);
    state.picture = picture;
    clear();
  });
  const choice = (erases) => {
    const input = el("input", { type: "radio", name: "brush", onchange: () => { state.erases = erases; } });
    input.checked = state.erases === erases;
    return el("label", {}, input, t(erases ? "eraser" : "brush"));
  };
  const size = el("input", { type: "range", min: "4", max: "160", id: "mask-size", "aria-label": t("brush_size"), oninput: () => { state.brush = Number(size.value); } });
  size.value = state.brush;
  const file = el("input", { type: "file", accept: "image/png,image/webp", id: "mask-file", onchange: () => {
    if (!file.files[0]) return;
    clear();
    state.file = file.files[0];
    changed();
  } });
  const told = el("span", { role: "status" });
  const reset = el("button", { type: "button", id: "mask-clear", onclick: () => { file.value = ""; clear(); } }, t("clear"));
  const save = el("button", { type: "button", id: "mask-save", onclick: async () => {
    const link = el("a", { href: URL.createObjectURL(await mask()), download: "mask.png" });
    link.click();
    URL.revokeObjectURL(link.href);
  } }, t("mask_save"));
  changed = () => {
    told.textContent = state.file ? state.file.name : t(state.painted ? "mask_some" : "mask_none");
    reset.disabled = !state.painted && !state.file;
    save.hidden = !state.painted;
  };
  changed();
  paint.setAttribute("aria-hidden", "true");
  return el("fieldset", { class: "mask" }, el("legend", {}, t("mask")),
    el("p", {}, t("mask_about")),
    el("div", { class: "paint" }, image, paint),
    el("div", { class: "brushes" }, choice(false), choice(true), el("label", {}, el("span", {}, t("brush_size")), size), reset, save, told),
    el("label", {}, el("span", {}, t("mask_file")), file));
}

/** The mask as a file, transparent where the picture changes; none: all of it does. */
export async function mask() {
  if (state.file || !state.painted) return state.file;
  const whole = document.createElement("canvas");
  whole.width = paint.width;
  whole.height = paint.height;
  const to = whole.getContext("2d");
  to.fillRect(0, 0, whole.width, whole.height);
  to.globalCompositeOperation = "destination-out";
  to.drawImage(paint, 0, 0);
  const blob = await new Promise((done) => whole.toBlob(done, "image/png"));
  return new File([blob], "mask.png", { type: "image/png" });
}
