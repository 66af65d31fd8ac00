// Pages of other origins in a real browser against a running `tidings local`: they try
// each of its ports, in each way that a page can make requests, and reach nothing.
import { test, before, after } from "node:test";
import assert from "node:assert/strict";
import { spawn, execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { until } from "./until.mjs";

const root = new URL("../..", import.meta.url).pathname;
const event = { event: "user.joined_community", actor_user_id: "u_attacker", data: { community_id: "c_attacker", community_name: "attacker" } };

let state, runner, browser, info, site, ports;

function tidings(...words) {
  return execFileSync(join(root, "bin/tidings"), ["--state-dir", state, ...words], { cwd: root, encoding: "utf8" }).trim();
}

before(async () => {
  state = mkdtempSync(join(tmpdir(), "tidings-security-"));
  runner = spawn(join(root, "bin/tidings"), ["--state-dir", state, "local", "--port", "0", "--quiet"], { cwd: root });
  let said = "";
  for (const out of [runner.stdout, runner.stderr]) out.on("data", (text) => (said += text));
  await until("the runner", () => {
    assert.equal(runner.exitCode, null, "the runner exited:\n" + said);
    return /login\?link=/.test(said);
  });
  info = JSON.parse(readFileSync(join(state, "local.json"), "utf8"));
  ports = { invoke: info.invoke_url, dynamodb: info.dynamodb_url, sqs: info.sqs_url, receiver: info.receiver_url, ...info.urls };
  // The attacker's page, on another port and under each name of this machine.
  site = createServer((_, response) => response.writeHead(200, { "Content-Type": "text/html" }).end("<!doctype html><title>attacker</title>"));
  await new Promise((done) => site.listen(0, done));
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
      // A name that the attacker has rebound to this machine.
      "--host-resolver-rules=MAP attacker.example 127.0.0.1, MAP *.attacker.example 127.0.0.1"],
  });
});

after(async () => {
  await browser?.close();
  site?.close();
  runner?.kill("SIGINT");
  await new Promise((done) => (runner && runner.exitCode === null ? runner.on("exit", done) : done()));
  rmSync(state, { recursive: true, force: true });
});

// payloads are what an attacker would send to each API.
function payloads() {
  const sign = "AWS4-HMAC-SHA256 Credential=local/20261130/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=x";
  const amz = (target) => ({ "Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": "DynamoDB_20120810." + target, Authorization: sign });
  return [
    { path: "/", headers: {}, body: undefined, method: "GET" },
    { path: "/report", headers: { Authorization: "Bearer local" }, body: undefined, method: "GET" },
    { path: "/", headers: { "Content-Type": "text/plain" }, body: JSON.stringify(event), method: "POST" },
    { path: "/", headers: { "Content-Type": "application/json" }, body: JSON.stringify(event), method: "POST" },
    { path: "/2015-03-31/functions/emit/invocations", headers: { "Content-Type": "text/plain" }, body: JSON.stringify(event), method: "POST" },
    { path: "/2015-03-31/functions/emit/invocations", headers: { Authorization: sign }, body: JSON.stringify(event), method: "POST" },
    { path: "/", headers: amz("ListTables"), body: "{}", method: "POST" },
    { path: "/", headers: amz("Scan"), body: JSON.stringify({ TableName: "tidings-local-Endpoints" }), method: "POST" },
    { path: "/", headers: amz("PutItem"), method: "POST", body: JSON.stringify({ TableName: "tidings-local-Control", Item: { key: { S: "console#link#planted" }, bound: { S: "{}" } } }) },
    { path: "/login", headers: { "Content-Type": "application/x-www-form-urlencoded" }, body: "link=x", method: "POST" },
  ];
}

// attack makes every request to every port, and returns the answers that it could read.
async function attack(page, urls) {
  return page.evaluate(async ([urls, list]) => {
    const read = [];
    for (const [name, base] of Object.entries(urls)) {
      for (const one of list) {
        for (const mode of ["cors", "no-cors"]) {
          try {
            const r = await fetch(base + one.path, { method: one.method, headers: one.headers, body: one.body, mode, credentials: "include" });
            if (r.type !== "opaque" && r.status !== 403) read.push(`${name} ${one.method} ${one.path} (${mode}): ${r.status} ${(await r.text()).slice(0, 100)}`);
          } catch { /* refused, as it should be */ }
        }
      }
      // A form, which needs no permission to send.
      const form = document.createElement("form");
      Object.assign(form, { method: "POST", action: base + "/", enctype: "text/plain", target: "sink" });
      const field = document.createElement("input");
      // As text/plain, name and value join to JSON.
      field.name = JSON.stringify(list[2].body ? JSON.parse(list[2].body) : {}).slice(0, -1) + ',"idempotency_key":"';
      field.value = 'x"}';
      form.append(field);
      const sink = document.createElement("iframe");
      sink.name = "sink";
      document.body.append(form, sink);
      const loaded = new Promise((done) => { sink.onload = done; setTimeout(done, 1000); });
      form.submit();
      await loaded;
      form.remove();
      sink.remove();
      // An image and a WebSocket, which send no preflight.
      await new Promise((done) => { const i = new Image(); i.onload = () => { read.push(name + ": an image"); done(); }; i.onerror = done; i.src = base + "/"; });
      await new Promise((done) => { const s = new WebSocket(base.replace("http", "ws")); s.onopen = () => { read.push(name + ": a WebSocket"); done(); }; s.onerror = done; });
    }
    return read;
  }, [urls, payloads()]);
}

// accepted counts the events that the runner has accepted, by its metrics.
function accepted() {
  const found = readFileSync(join(state, "functions.log"), "utf8").matchAll(/"AcceptedEvents":(\d+)\}/g);
  return [...found].reduce((sum, m) => sum + Number(m[1]), 0);
}

// The CLI gets in, so the ports do serve; and its event shows that counting works.
test("the CLI reaches the runner with the run's secrets", async () => {
  assert.equal(statSync(join(state, "local.json")).mode & 0o077, 0, "others can read the state file");
  assert.ok(info.access_key.length >= 26 && info.health_token.length >= 26);
  tidings("emit", event.event, "--data", JSON.stringify(event.data));
  await until("the event in the log", () => accepted() === 1);
  tidings("status", "--days", "0", "--json");
});

for (const [name, where] of Object.entries({
  "another port of 127.0.0.1": (port) => `http://127.0.0.1:${port}/`,
  "another port of localhost": (port) => `http://localhost:${port}/`,
  "another site": (port) => `http://attacker.example:${port}/`,
})) {
  test(`a page from ${name} reaches nothing`, async () => {
    const context = await browser.newContext();
    const page = await context.newPage();
    await page.goto(where(site.address().port));
    assert.equal(await page.title(), "attacker");
    assert.deepEqual(await attack(page, ports), []);
    const byName = Object.fromEntries(Object.entries(ports).map(([k, v]) => [k, v.replace("127.0.0.1", "localhost")]));
    assert.deepEqual(await attack(page, byName), []);
    await context.close();
    assert.equal(accepted(), 1, "an event of the page was accepted");
  });
}

test("a page without an origin (a sandboxed frame) reaches nothing", async () => {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(`http://127.0.0.1:${site.address().port}/`);
  await page.evaluate(() => { const f = document.createElement("iframe"); f.setAttribute("sandbox", "allow-scripts allow-forms"); f.srcdoc = "<title>null</title>"; document.body.append(f); });
  const frame = await until("the frame", () => page.frames().find((f) => f !== page.mainFrame()));
  await frame.waitForLoadState();
  assert.equal(await frame.evaluate(() => globalThis.origin), "null");
  assert.deepEqual(await attack(frame, ports), []);
  await context.close();
  assert.equal(accepted(), 1);
});

// The page's own host name is rebound: for the browser, the runner is now of its origin.
test("a page of a rebound host name reaches nothing", async () => {
  for (const [name, url] of Object.entries(ports)) {
    const port = new URL(url).port;
    const context = await browser.newContext();
    const page = await context.newPage();
    const response = await page.goto(`http://rebound.attacker.example:${port}/`);
    assert.equal(response.status(), 403, `${name} answers for another host name`);
    assert.deepEqual(await attack(page, { [name]: `http://rebound.attacker.example:${port}` }), []);
    await context.close();
  }
  assert.equal(accepted(), 1);
});

// DynamoDB itself answers every origin, so it must not be found by trying ports.
test("the emulator behind the runner is not at 127.0.0.1", { skip: process.platform !== "linux" }, async () => {
  const processes = readdirSync("/proc").filter((d) => /^\d+$/.test(d)).flatMap((pid) => {
    try {
      const parent = / (\d+) /.exec(readFileSync(`/proc/${pid}/stat`, "utf8").replace(/^.*\) ./, ""))?.[1];
      return parent === String(runner.pid) ? [readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0")] : [];
    } catch { return []; }
  });
  const words = processes.find((w) => w[0].includes("dynoxide"));
  assert.ok(words, "the emulator is not running");
  const host = words[words.indexOf("--host") + 1], port = words[words.indexOf("--port") + 1];
  assert.match(host, /^127\.(?!0\.0\.1$)/);
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(`http://127.0.0.1:${site.address().port}/`);
  const found = await page.evaluate(async (port) => {
    for (const name of ["127.0.0.1", "localhost", "[::1]", "0.0.0.0"]) {
      try { await fetch(`http://${name}:${port}/`, { method: "POST", mode: "no-cors" }); return name; } catch { /* nobody is there */ }
    }
    return "";
  }, port);
  assert.equal(found, "");
  await context.close();
});

test("nothing was planted", () => {
  assert.deepEqual(JSON.parse(tidings("endpoint", "list", "--json")).map((e) => e.url), [info.receiver_url + "/"]);
  const log = readFileSync(join(state, "functions.log"), "utf8");
  assert.ok(!log.includes("console.login"), "somebody logged in");
});
