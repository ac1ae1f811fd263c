// What a model could write must stay text: payloads as answers, in a real browser beside a server that nobody may ask.
// usage: xss.mjs BASE; run where node_modules has playwright-core.
import { createServer } from "node:http";
import { createRequire } from "node:module";
const [base] = process.argv.slice(2);
const { chromium } = createRequire(`${process.cwd()}/`)("playwright-core");
const assert = (ok, what) => { if (!ok) throw new Error(what); };

const asked = [];
const sink = createServer((request, response) => { asked.push(request.url); response.end(); });
await new Promise((listening) => sink.listen(0, "127.0.0.1", listening));
const evil = `http://127.0.0.1:${sink.address().port}`;

// Each tries to run `window.caught = 1`, to open a dialog, or to reach the sink.
const code = ["window.caught=1", "alert(1)", `fetch('${evil}/f')`];
const handlers = ["img src=x onerror", "svg onload", "body onload", "video src=x onerror", "details open ontoggle", "input autofocus onfocus",
  "marquee onstart", "iframe onload", "object data=x onerror", "a href=x onmouseover", "style onload", "audio src=x onerror"];
const schemes = ["javascript:", "JaVaScRiPt:", "java\tscript:", " javascript:", "&#106;avascript:", "data:text/html,<script>", "vbscript:", "blob:", "file:///etc/passwd?", "//127.0.0.1:1/"];
const links = [(u) => `[x](${u})`, (u) => `![x](${u})`, (u) => `<${u}>`, (u) => `[x]: ${u}\n[x]`, (u) => `<a href="${u}">x</a>`];
const loads = [`<img src="${evil}/1">`, `![x](${evil}/2)`, `[![x](${evil}/3)](${evil}/4)`, `<link rel=stylesheet href="${evil}/5">`, `<script src="${evil}/6"></script>`,
  `<iframe src="${evil}/7"></iframe>`, `<style>@import "${evil}/8";</style>`, `<div style="background:url(${evil}/9)">`, `<base href="${evil}/">`, `<meta http-equiv=refresh content="0;url=${evil}/10">`,
  `<form action="${evil}/11"><button autofocus>`, `<object data="${evil}/12">`, `<embed src="${evil}/13">`, `<video poster="${evil}/14">`, `<svg><image href="${evil}/15"/></svg>`, `<svg><use href="${evil}/16#x"/></svg>`,
  `<link rel=prefetch href="${evil}/17">`, `<link rel=dns-prefetch href="${evil}/18">`, `![x](${evil}/19 "t")`, `<picture><source srcset="${evil}/20"></picture>`, `<input type=image src="${evil}/21">`, `<body background="${evil}/22">`];
const around = [(p) => p, (p) => "```html\n" + p + "\n```", (p) => "`" + p + "`", (p) => `**${p}**`, (p) => `# ${p}`];
const bare = [
  ...code.flatMap((c) => handlers.map((handler) => `<${handler}="${c}">`)),
  ...code.flatMap((c) => [`<script>${c}</script>`, `</textarea><script>${c}</script>`, `</title><script>${c}</script>`, `"><script>${c}</script>`, `<!--><script>${c}</script>`,
    `<noscript><p title="</noscript><script>${c}</script>">`, `<math><mtext><table><mglyph><style><img src=x onerror="${c}">`, `<svg><script>${c}</script></svg>`, `<template><script>${c}</script></template>`]),
  ...schemes.flatMap((scheme) => links.map((link) => link(scheme + code[0]))),
  ...loads,
];
const payloads = [...bare, ...loads.flatMap((p) => around.slice(1).map((a) => a(p)))];
assert(payloads.length >= 150, `${payloads.length} payloads`);

const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"] });
const page = await browser.newPage();
const faults = [];
page.on("dialog", (dialog) => { faults.push("a dialog"); dialog.dismiss(); });
page.on("request", (request) => { if (!request.url().startsWith(base)) faults.push(`asks ${request.url()}`); });
page.on("console", (message) => /Content Security Policy/.test(message.text()) && faults.push(message.text()));
let payload = "";
await page.route("**/v1/chat/completions", (route) => {
  const event = (delta, end = null) => `data: ${JSON.stringify({ id: "x", object: "chat.completion.chunk", created: 0, model: "null", choices: [{ index: 0, delta, finish_reason: end }] })}\n\n`;
  // In pieces, as tokens come: what is cut in half must be no more alive.
  const pieces = payload.match(/[^]{1,7}/gu).map((content) => event({ content }));
  const body = event({ role: "assistant", content: "" }) + event({ reasoning_content: payload }) + pieces.join("") + event({}, "stop") + "data: [DONE]\n\n";
  return route.fulfill({ status: 200, contentType: "text/event-stream", body });
});
await page.goto(base);
await page.waitForFunction(() => document.querySelector("#model").options.length > 0);
let turns = 0;
for (payload of payloads) {
  await page.fill("#input", payload);
  await page.keyboard.press("Enter");
  turns += 1;
  await page.waitForFunction((n) => document.querySelectorAll(".turn.assistant").length >= n && !document.querySelector(".busy"), turns, { timeout: 20000 });
  const alive = await page.evaluate(() => {
    const last = [...document.querySelectorAll(".turn")].slice(-2);
    const bad = last.flatMap((turn) => [...turn.querySelectorAll("script, style, img, svg, iframe, object, embed, video, audio, picture, link, meta, base, form, math, template, body, input")]);
    const links = last.flatMap((turn) => [...turn.querySelectorAll("a")]).filter((a) => !/^https?:/.test(a.protocol) || !/noopener/.test(a.rel) || !/noreferrer/.test(a.rel));
    const acts = last.flatMap((turn) => [...turn.querySelectorAll("*")]).filter((node) => [...node.attributes].some((a) => a.name.startsWith("on")));
    if (!last.every((turn) => turn.querySelector(".body").textContent.trim())) return "nothing is shown";
    return window.caught || bad.concat(links, acts).map((node) => node.outerHTML).join(" ");
  });
  if (alive) faults.push(`${payload}: ${alive}`);
}
// The same from what the browser has kept, if the page keeps any.
await page.reload();
await page.waitForFunction(() => document.querySelector("#model").options.length > 0);
if (await page.evaluate(() => window.caught)) faults.push("a kept conversation came alive");
await browser.close();
sink.close();
faults.push(...asked.map((url) => `the sink was asked for ${url}`));
assert(faults.length === 0, faults.slice(0, 20).join("\n"));
console.log(`${payloads.length} payloads stayed text`);
