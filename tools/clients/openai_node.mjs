// openai (Node): chat, stream, tools, schema, embeddings, pictures, errors. Prints one JSON document, as common.py does.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
const [base, chat, embed] = process.argv.slice(2);
const require = createRequire(`${process.cwd()}/`);
const { default: OpenAI } = await import(require.resolve("openai"));
const client = new OpenAI({ baseURL: `${base}/v1`, apiKey: "none", maxRetries: 0 });
const ask = [{ role: "user", content: "Name a river in Europe." }];
const assert = (ok, what) => { if (!ok) throw new Error(what ?? "not so"); };
const weather = { type: "object", properties: { city: { type: "string", maxLength: 20 } }, required: ["city"], additionalProperties: false };

const checks = {
  async models() {
    const all = [];
    for await (const model of client.models.list()) all.push(model.id);
    assert(all.length > 0);
  },
  async chat() {
    const answer = await client.chat.completions.create({ model: chat, messages: ask, max_tokens: 24 });
    assert(answer.choices[0].message.content.trim());
  },
  async stream() {
    let text = "";
    for await (const chunk of await client.chat.completions.create({ model: chat, messages: ask, max_tokens: 24, stream: true })) text += chunk.choices[0]?.delta?.content ?? "";
    assert(text.trim());
  },
  async tools() {
    const tools = [{ type: "function", function: { name: "get_weather", description: "Weather", parameters: weather } }];
    const answer = await client.chat.completions.create({ model: chat, messages: ask, tools, tool_choice: "required", max_tokens: 80 });
    assert("city" in JSON.parse(answer.choices[0].message.tool_calls[0].function.arguments));
  },
  async "tools in a stream"() {
    const tools = [{ type: "function", function: { name: "get_weather", description: "Weather", parameters: weather } }];
    const stream = client.chat.completions.stream({ model: chat, messages: ask, tools, tool_choice: "required", parallel_tool_calls: false, max_tokens: 80 });
    const final = await stream.finalChatCompletion();
    assert(final.choices[0].message.tool_calls[0].function.name === "get_weather");
  },
  async "json schema"() {
    const schema = { type: "object", properties: { name: { type: "string", maxLength: 20 } }, required: ["name"], additionalProperties: false };
    const answer = await client.chat.completions.create({ model: chat, messages: ask, max_tokens: 80, response_format: { type: "json_schema", json_schema: { name: "x", schema, strict: true } } });
    assert(typeof JSON.parse(answer.choices[0].message.content).name === "string");
  },
  async responses() {
    const answer = await client.responses.create({ model: chat, input: "Name a river.", max_output_tokens: 20 });
    assert(answer.output_text.trim());
  },
  async abort() {
    const stream = await client.chat.completions.create({ model: chat, messages: ask, max_tokens: 500, stream: true });
    for await (const _ of stream) break;
    stream.controller.abort();
  },
  async embeddings() {
    if (!embed) return "no: no embedding model here";
    const answer = await client.embeddings.create({ model: embed, input: ["a cat", "a dog"] });
    assert(answer.data.length === 2 && answer.data[0].embedding.length > 10);
  },
  async pictures() {
    const ask = { prompt: "a red fox", size: "64x64", steps: 6, seed: 7 };
    const whole = (await client.images.generate(ask)).data[0].b64_json;
    const events = [];
    for await (const event of await client.images.generate({ ...ask, stream: true, partial_images: 2 })) events.push(event);
    const partial = "image_generation.partial_image";
    assert(events.map((event) => event.type).join() === [partial, partial, "image_generation.completed"].join(), "other events");
    assert(events[2].b64_json === whole && events[2].usage.total_tokens > 0, "another picture");
  },
  async errors() {
    try {
      await client.chat.completions.create({ model: "no-such-model", messages: ask });
    } catch (error) {
      assert(error instanceof OpenAI.NotFoundError && error.code === "model_not_found", String(error));
      return;
    }
    throw new Error("no error");
  },
};

const results = {};
for (const [name, check] of Object.entries(checks)) {
  try {
    // A small model's sampled answer may run into its bound: once more, then it counts.
    results[name] = (await check().catch(() => check())) ?? "pass";
  } catch (error) {
    results[name] = `FAIL: ${error.message}`.slice(0, 300);
  }
  console.error(`openai (Node): ${name}: ${results[name]}`);
}
const version = JSON.parse(readFileSync(`${process.cwd()}/node_modules/openai/package.json`, "utf8")).version;
console.log(JSON.stringify({ client: "openai (Node)", version, results }));
process.exit(Object.values(results).some((r) => r.startsWith("FAIL")) ? 1 : 0);
