// The page in a real browser: chat, stop, edit, retry, models, figures, pictures seen and drawn, both languages, light and dark,
// phone.
// usage: check.mjs BASE [FOLDER for screenshots, or -] [PICTURE]; run where node_modules has playwright-core.
import { createRequire } from "node:module";
const [base, shots, picture] = process.argv.slice(2);
const folder = shots === "-" ? undefined : shots;
const { chromium } = createRequire(`${process.cwd()}/`)("playwright-core");
const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"],
});
const page = await browser.newPage({ viewport: { width: 1200, height: 780 } });
const faults = [];
page.on("console", (message) => message.type() === "error" && faults.push(message.text()));
page.on("pageerror", (error) => faults.push(error.message));
page.on("request", (request) => { if (![base, "blob:" + base, "data:"].some((own) => request.url().startsWith(own))) faults.push(`asks ${request.url()}`); });
page.on("dialog", (dialog) => { faults.push("a dialog"); dialog.dismiss(); });
const shot = (name) => folder && page.screenshot({ path: `${folder}/${name}.png` });
const assert = (ok, what) => { if (!ok) throw new Error(what); };
const answered = (n) => page.waitForFunction((n) => document.querySelectorAll(".turn.assistant").length >= n && !document.querySelector(".busy"), n, { timeout: 120000 });

await page.goto(base);
await page.waitForSelector(".hello");
await page.waitForFunction(() => document.querySelector("#model").options.length > 0);
await shot("1-hello");
await page.fill("#max_tokens", "40");
await page.fill("#input", "Why is the sky blue?");
await page.keyboard.press("Enter");
await answered(1);
assert((await page.textContent(".turn.assistant .body")).trim().length > 5, "no answer");
await shot("2-chat");

// What a model could write must stay text.
await page.fill("#input", "<img src=x onerror=alert(1)> <script>alert(2)</script> [x](javascript:alert(3)) ![y](http://evil.example/z.png)");
await page.keyboard.press("Enter");
await answered(2);
assert(await page.evaluate(() => !document.querySelector("#log img[src='x'], #log script, #log a[href^='javascript']")), "markup came alive");

// Stop a long answer, then retry and edit.
await page.fill("#max_tokens", "4000");
await page.fill("#input", "Tell a very long story.");
await page.keyboard.press("Enter");
await page.waitForSelector(".busy");
await page.keyboard.press("Escape");
await answered(3);
await page.fill("#max_tokens", "20");
await page.locator(".turn.assistant").last().getByRole("button", { name: "Retry" }).click();
await answered(3);
await page.locator(".turn.user").last().getByRole("button", { name: "Edit" }).click();
await page.locator(".turn textarea").fill("Say hello.");
await page.keyboard.press("Enter");
await answered(3);
assert((await page.locator(".turn.user .body").last().textContent()) === "Say hello.", "not edited");

// A schema holds the answer.
await page.fill("#schema", '{"type":"object","properties":{"ok":{"type":"boolean"}},"required":["ok"],"additionalProperties":false}');
await page.fill("#input", "Is it?");
await page.keyboard.press("Enter");
await answered(4);
const last = await page.locator(".turn.assistant .body").last().textContent();
assert(typeof JSON.parse(last).ok === "boolean", `no JSON: ${last}`);
await page.click("#code");
assert((await page.textContent("#code-text")).includes("/v1/chat/completions"), "no call");
await page.click("#code-close");

await page.click("#theme");
await shot("3-dark");
for (const [tab, wanted] of [["models", "#model-list .card"], ["live", "#figures .card"], ["try", "form.card"]]) {
  await page.click(`#tab-${tab}`);
  await page.waitForSelector(wanted);
  await page.waitForTimeout(tab === "live" ? 2500 : 300);
  await shot(`4-${tab}`);
}
// A picture goes through every model for pictures that the server has.
if (picture) {
  const { data } = await (await fetch(base + "/v1/models")).json();
  await page.click("#tab-pictures");
  for (const { task } of data.filter((model) => (model.type === "vision" || model.type === "image") && model.task !== "image")) {
    await page.selectOption("#picture-task", task);
    await page.setInputFiles("#picture-file", []);
    await page.setInputFiles("#picture-file", picture);
    await page.waitForFunction(() => [...document.querySelectorAll("#picture-out .compare img")].filter((i) => i.complete && i.naturalWidth > 0).length === 2 || document.querySelector("#picture-out .error"), null, { timeout: 60000 });
    assert(await page.locator("#picture-out .error").count() === 0, `${task}: ${await page.textContent("#picture-out")}`);
    await page.focus("#picture-out .slider");
    await page.keyboard.press("End");
    assert((await page.evaluate(() => document.querySelectorAll(".compare img")[1].style.clipPath)).includes("100%"), "the slider does not move");
    await page.evaluate(() => { const s = document.querySelector("#picture-out .slider"); s.value = 50; s.dispatchEvent(new Event("input")); });
    await shot(`4-picture-${task}`);
  }
  if (data.some((model) => model.task !== "image" && (model.type === "vision" || model.type === "image"))) {
    await page.click("#code");
    assert((await page.textContent("#code-text")).includes("-F 'image=@"), "no call for the picture");
    await page.click("#code-close");
  }
  if (data.some((model) => model.task === "embed-image")) {
    await page.selectOption("#picture-task", "classify");
    await page.fill("#picture-labels", "cat, dog，boat");
    await page.setInputFiles("#picture-file", []);
    await page.setInputFiles("#picture-file", picture);
    await page.waitForFunction(() => document.querySelectorAll("#picture-out .said > div").length === 3 || document.querySelector("#picture-out .error"), null, { timeout: 60000 });
    assert((await page.textContent("#picture-out")).includes("boat"), `not labelled: ${await page.textContent("#picture-out")}`);
    await shot("4-picture-labels");
  }
  await draw(data.find((model) => model.task === "image"));
}
async function draw(model) {
  const tiles = (n) => page.waitForFunction((n) => [...document.querySelectorAll("#draw-gallery .card")].length === n && !document.querySelector("#draw-run").disabled, n, { timeout: 60000 });
  const failed = async () => assert((await page.textContent("#draw-state > .error")) === "", `not drawn: ${await page.textContent("#draw-state")}`);
  const call = async (...wanted) => {
    await page.click("#code");
    const text = await page.textContent("#code-text");
    for (const part of wanted) assert(text.includes(part), `the call has no ${part}: ${text}`);
    await page.click("#code-close");
  };
  await page.selectOption("#picture-task", "draw");
  assert((await page.isVisible(".notice")) === !model, "a wrong hint on models that draw");
  await shot("5-draw-empty");
  if (!model) return;
  await page.selectOption("#picture-model", model.id);
  await page.fill("#draw-prompt", "A red fox in the snow");
  await page.selectOption("#draw-size", "other");
  await page.fill("#draw-width", "64");
  await page.fill("#draw-height", "48");
  await page.fill("#draw-count", "2");
  await page.fill("#draw-steps", "8");
  await page.fill("#draw-seed", "7");
  await page.press("#draw-prompt", "Enter");
  await tiles(2);
  await failed();
  assert((await page.textContent("#draw-gallery")).includes("8 · 64×48"), "no seed of the second picture");
  await call("/v1/images/generations", '"seed": 7', '"size": "64x48"');
  await shot("5-draw");
  // Long work shows how far it is, and stops.
  await page.fill("#draw-width", "512");
  await page.fill("#draw-height", "512");
  await page.fill("#draw-steps", "150");
  await page.click("#draw-run");
  await page.waitForFunction(() => /[1-9]\d* \/ 152/.test(document.querySelector("#draw-line").textContent), null, { timeout: 60000 });
  await page.waitForSelector("#draw-so-far:not([hidden])", { timeout: 60000 });
  await shot("5-draw-running");
  // The work goes on while another view is looked at.
  await page.click("#tab-models");
  await page.click("#tab-pictures");
  assert(await page.isVisible("#draw-stop"), "the work was forgotten");
  await page.click("#draw-stop");
  await tiles(2);
  for (let idle = false; !idle; idle = (await (await fetch(base + "/v1/status")).json()).in_flight === 0) await page.waitForTimeout(100);
  // A part of a picture is painted over and drawn anew.
  await page.selectOption("#draw-size", "");
  await page.fill("#draw-count", "1");
  await page.fill("#draw-steps", "4");
  await page.locator("#draw-gallery .card").first().getByRole("button", { name: "Change it" }).click();
  assert((await page.inputValue("#picture-task")) === "edit", "the picture is not taken to be changed");
  await page.setInputFiles("#picture-file", picture);
  const canvas = page.locator(".paint canvas");
  await page.waitForFunction(() => document.querySelector(".paint img").naturalWidth > 0);
  await canvas.scrollIntoViewIfNeeded();
  const box = await canvas.boundingBox();
  await page.mouse.move(box.x + box.width * 0.3, box.y + box.height * 0.3);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.7, box.y + box.height * 0.6, { steps: 5 });
  await page.mouse.up();
  await shot("5-draw-mask");
  await page.fill("#draw-strength", "0.6");
  await page.click("#draw-run");
  await tiles(3);
  await failed();
  await call("/v1/images/edits", "-F 'mask=@mask.png'", "--form-string 'strength=0.6'");
  await page.locator("#draw-gallery .slider").focus();
  await page.keyboard.press("End");
  assert((await page.evaluate(() => document.querySelectorAll("#draw-gallery .compare img")[1].style.clipPath)).includes("100%"), "the slider does not move");
  await page.click("#mask-clear");
  assert(await page.isDisabled("#mask-clear"), "the mask is not cleared");
  await page.selectOption("#picture-task", "vary");
  assert(await page.isHidden("#draw-negative"), "a field without effect");
  await page.click("#draw-run");
  await tiles(4);
  await failed();
  await call("/v1/images/variations", "--form-string 'seed=7'");
  await shot("5-draw-anew");
}
// Texts through the playground: personal data needs no model.
await page.click("#tab-try");
await page.locator("form.card", { has: page.locator("#try-extract-text") }).getByRole("button").click();
await page.waitForSelector("mark");
assert((await page.textContent("mark")).includes("ann@example.org"), "nothing extracted");
// The tabs by keyboard, Chinese, a phone.
await page.focus("#tab-chat");
await page.keyboard.press("ArrowRight");
assert((await page.getAttribute("#tab-try", "aria-selected")) === "true", "arrows do not move between tabs");
await page.click("#language");
assert((await page.textContent("#tab-chat")) === "对话", "not Chinese");
await page.setViewportSize({ width: 360, height: 780 });
const tabsShow = () => page.evaluate(() => [...document.querySelectorAll("nav button")].every((tab) => tab.getBoundingClientRect().right <= innerWidth));
assert(await tabsShow(), "a tab is cut off in Chinese");
await page.click("#language");
assert(await tabsShow(), "a tab is cut off in English");
await page.click("#language");
await page.click("#tab-chat");
assert(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "wider than a phone");
await shot("5-phone");
await page.click("#settings");
await shot("6-phone-settings");
await page.keyboard.press("Escape");
for (const tab of ["try", "pictures", "models", "live"]) {
  await page.click(`#tab-${tab}`);
  await page.waitForTimeout(300);
  assert(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${tab} is wider than a phone`);
  await shot(`7-phone-${tab}`);
}
await page.click("#tab-pictures");
for (const task of ["draw", "edit", "vary"]) {
  await page.selectOption("#picture-task", task);
  assert(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth && document.querySelector("#view-pictures").scrollWidth <= innerWidth), `${task} is wider than a phone`);
  await shot(`8-phone-${task}`);
}
// Where no model draws, the page says which does.
await page.route("**/v1/models", (route) => route.fulfill({ json: { object: "list", data: [] } }));
await page.reload();
await page.selectOption("#picture-task", "draw");
assert((await page.textContent(".notice")).includes("kun pull") && await page.isDisabled("#draw-run"), "no hint where no model draws");
await shot("9-phone-no-model");
await browser.close();
if (faults.length) throw new Error(faults.join("\n"));
console.log("the page passes");
