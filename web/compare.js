// Two pictures over each other and a line between them.

/** `file` before and the picture at the address `after`, with a slider. */
export function compare({ el, t }, file, after) {
  const before = el("img", { alt: t("before"), src: URL.createObjectURL(file) });
  before.addEventListener("load", () => URL.revokeObjectURL(before.src));
  const line = el("i");
  const over = el("img", { alt: t("after"), src: after });
  const slide = el("input", { type: "range", min: "0", max: "100", value: "50", "aria-label": t("slide"), class: "slider" });
  const figure = el("figure", { class: "compare" }, before, over, line, el("span", {}, t("before")), el("span", {}, t("after")));
  const place = () => {
    over.style.clipPath = `inset(0 0 0 ${slide.value}%)`;
    line.style.marginLeft = `calc(${slide.value}% - 1px)`;
  };
  const drag = (event) => {
    if (event.type === "pointermove" && !event.buttons) return;
    const box = figure.getBoundingClientRect();
    slide.value = ((event.clientX - box.left) / box.width) * 100;
    place();
  };
  figure.addEventListener("pointerdown", drag);
  figure.addEventListener("pointermove", drag);
  figure.addEventListener("dragstart", (event) => event.preventDefault());
  slide.addEventListener("input", place);
  place();
  return el("div", {}, figure, slide);
}
