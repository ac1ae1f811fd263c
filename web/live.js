// Live figures of the server, and a line of its tokens per second.
const history = [];
let previous = null;
/** Draws the view; called every second while it shows. */
export async function drawLive({ $, el, t, ask, toast, bytes }) {
  let text;
  try { text = await (await ask("GET", "metrics")).text(); } catch (error) { toast(error.message); return; }
  const value = (name) => text.split("\n").filter((l) => l.startsWith(name + " ") || l.startsWith(name + "{")).reduce((sum, l) => sum + Number(l.split(" ").pop()), 0);
  const now = performance.now();
  const tokens = value("kun_completion_tokens_total");
  if (previous) history.push(Math.max(0, (tokens - previous.tokens) / ((now - previous.now) / 1000)));
  previous = { now, tokens };
  if (history.length > 90) history.shift();
  const mean = (name) => { const n = value(name + "_count"); return n ? Math.round(value(name + "_sum") / n * 1000) + " ms" : "–"; };
  const figures = [
    ["in_flight", value("kun_requests_in_flight")], ["requests", value("kun_requests_total")], ["out_tokens", tokens],
    ["in_tokens", value("kun_prompt_tokens_total")], ["cached_tokens", value("kun_cached_tokens_total")],
    ["ttft", mean("kun_time_to_first_token_seconds")], ["queue", mean("kun_queue_seconds")],
    ["busy", value("kun_refused_busy_total")], ["connections", value("kun_connections")], ["memory", bytes(value("kun_memory_used_bytes"))],
  ];
  $("figures").replaceChildren(...figures.map(([label, number]) => el("div", { class: "card" }, el("b", {}, String(number)), el("span", {}, t(label)))));
  $("rate-now").textContent = history.length ? history.at(-1).toFixed(1) : "–";
  chart($("chart"));
}
function chart(canvas) {
  const ratio = devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * ratio;
  canvas.height = 160 * ratio;
  const c = canvas.getContext("2d");
  c.scale(ratio, ratio);
  const width = canvas.clientWidth, height = 160, most = Math.max(10, ...history);
  const style = getComputedStyle(document.body);
  c.strokeStyle = style.getPropertyValue("--line") || "#888";
  c.strokeStyle = getComputedStyle(canvas.parentElement).borderTopColor;
  c.lineWidth = 1;
  for (const share of [0.25, 0.5, 0.75]) { c.beginPath(); c.moveTo(0, height * share); c.lineTo(width, height * share); c.stroke(); }
  c.strokeStyle = getComputedStyle(document.querySelector('nav [aria-selected="true"]')).color;
  c.lineWidth = 2;
  c.lineJoin = "round";
  c.beginPath();
  history.forEach((rate, i) => c[i ? "lineTo" : "moveTo"](width - (history.length - 1 - i) * (width / 89), height - 4 - (rate / most) * (height - 12)));
  c.stroke();
}
