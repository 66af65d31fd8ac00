// The console in a real browser. All tests share one runner and one browser, and each
// starts from the state that the previous one left.
import { test, before, after } from "node:test";
import assert from "node:assert/strict";
import { spawn, execFileSync } from "node:child_process";
import { mkdtempSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { until } from "./until.mjs";

const root = new URL("../..", import.meta.url).pathname;
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const images = process.env.SCREENSHOTS ? join(root, "docs/images") : null;
const hostile = `"'><img src=x onerror="document.title='pwned'"><script>document.title='pwned'</script>`;

let state, runner, browser, base, admin, page, mine;
const problems = []; // errors that the browser reported

// tidings runs the CLI against the runner.
function tidings(...words) {
  return execFileSync(join(root, "bin/tidings"), ["--state-dir", state, ...words], { cwd: root, encoding: "utf8" }).trim();
}

function emit(type, data) {
  return JSON.parse(tidings("--json", "emit", type, "--data", JSON.stringify(data))).id;
}

async function login(role, as) {
  const context = await browser.newContext({ viewport: { width: 1180, height: 800 } });
  const p = await context.newPage();
  watch(p);
  await p.goto(tidings("console", "login", "--role", role, "--as", as));
  await p.getByRole("button", { name: "Log in" }).click();
  await p.waitForURL(base + "/");
  return p;
}

function watch(p) {
  p.on("pageerror", (e) => problems.push(`${p.url()}: ${e.message}`));
  p.on("console", (m) => {
    // A rejected form is answered with 4xx, which the browser logs as a failed load.
    if (m.type() === "error" && !/status of 4\d\d/.test(m.text())) problems.push(`${p.url()}: ${m.text()}`);
  });
}

// pictures lists the screenshots of docs/images in addition to the light desktop one.
const pictures = { overview: ["dark", "phone"], deliveries: ["phone"], metrics: ["phone"] };
const unpictured = [
  "secret", "event", "test", "discussions-expiring", "capture-rules", "capture-rules-wrong", "capture-rules-diff", "event-types", "event-types-plan",
];

// look checks a page's accessibility and width in light, dark and phone layout, and
// takes screenshots if asked to.
async function look(p, name) {
  for (const [scheme, width] of [["light", 1180], ["dark", 1180], ["light", 390]]) {
    await p.emulateMedia({ colorScheme: scheme });
    await p.setViewportSize({ width, height: 800 });
    await p.evaluate(axe + ";0");
    const found = await p.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
    const serious = found.violations.filter((v) => v.impact === "serious" || v.impact === "critical");
    assert.deepEqual(serious.map((v) => `${v.id}: ${v.nodes.map((n) => n.html).join(" | ").slice(0, 600)}`), [], `axe on ${name}, ${scheme}, ${width} px`);
    if (width >= 1000) {
      const cut = await p.evaluate(() => [...document.querySelectorAll(".scroll")].filter((t) => t.scrollWidth > t.clientWidth).map((t) => `${t.scrollWidth} px in ${t.clientWidth}`));
      assert.deepEqual(cut, [], `tables of ${name} are cut off, ${scheme}, ${width} px`);
    }
    const overflow = await p.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.ok(overflow <= 1, `${name} scrolls sideways by ${overflow} px at ${width} px`);
    const kind = scheme === "dark" ? "dark" : width < 500 ? "phone" : "";
    const kept = kind ? pictures[name]?.includes(kind) : !unpictured.includes(name);
    if (images && kept) await p.screenshot({ path: join(images, `console-${name}${kind && "-" + kind}.png`) });
  }
  await p.emulateMedia({ colorScheme: "light" });
  await p.setViewportSize({ width: 1180, height: 800 });
  assert.notEqual(await p.title(), "pwned");
}

const see = (p, text, timeout = 60_000) => p.getByText(text, { exact: false }).first().waitFor({ timeout });

// endpoint starts a receiver with a configurable response that records its requests.
function endpoint() {
  const r = { status: 200, body: "", got: [] };
  r.server = createServer((request, response) => {
    let body = "";
    request.on("data", (part) => (body += part));
    request.on("end", () => {
      r.got.push({ headers: request.headers, body });
      response.writeHead(r.status).end(r.body);
    });
  });
  return new Promise((done) => r.server.listen(0, "127.0.0.1", () => {
    r.url = `http://127.0.0.1:${r.server.address().port}`;
    done(r);
  }));
}

before(async () => {
  state = mkdtempSync(join(tmpdir(), "tidings-browser-"));
  if (images) mkdirSync(images, { recursive: true });
  runner = spawn(join(root, "bin/tidings"), ["--state-dir", state, "local", "--port", "0", "--quiet"], { cwd: root });
  let said = "";
  runner.stderr.on("data", (text) => (said += text));
  const link = await new Promise((done, failed) => {
    runner.stdout.on("data", (text) => {
      said += text;
      const found = /http:\S+\/login\?link=\S+/.exec(said);
      if (found) done(found[0]);
    });
    runner.on("exit", () => failed(new Error("the runner exited:\n" + said)));
  });
  base = new URL(link).origin;
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
  mine = await endpoint();
  // The login link in the banner works once.
  const context = await browser.newContext({ viewport: { width: 1180, height: 800 } });
  admin = page = await context.newPage();
  page.setDefaultTimeout(20_000);
  page.on("dialog", (dialog) => dialog.accept());
  watch(page);
  await page.goto(link);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.waitForURL(base + "/");
  const late = await (await browser.newContext()).newPage();
  await late.goto(link);
  await late.getByRole("button", { name: "Log in" }).click();
  await see(late, "was used");
  await late.context().close();
});

after(async () => {
  await browser?.close();
  mine?.server.close();
  mine?.server.closeAllConnections();
  if (runner && runner.exitCode === null) {
    const ended = new Promise((done) => runner.on("exit", done));
    runner.kill("SIGTERM");
    await ended;
  }
  rmSync(state, { recursive: true, force: true });
});

test("requests without a session go to the login page", async () => {
  const stranger = await (await browser.newContext()).newPage();
  watch(stranger);
  await stranger.goto(base + "/endpoints");
  assert.equal(new URL(stranger.url()).pathname, "/login");
  await look(stranger, "login");
  await stranger.context().close();
});

test("add an endpoint, validated while typing", async () => {
  await page.goto(base + "/endpoints");
  await page.getByRole("link", { name: "Add endpoint" }).click();
  await page.getByLabel("URL").pressSequentially("ftp://example.com");
  await see(page, "unsupported scheme");
  await page.getByLabel("URL").fill(mine.url + "/hooks");
  await until("the message is gone", () => page.locator("#error-url").textContent().then((text) => text === ""));
  await page.getByLabel("Filter").fill('{"data":5}');
  await until("the filter is refused", async () => (await page.locator("#error-filter").textContent()).includes("data"));
  await look(page, "form");
  await page.getByRole("button", { name: "Add", exact: true }).click();
  await see(page, "Not saved");
  await page.getByLabel("Filter").fill('{"event":["user.posted_comment"]}');
  await page.getByLabel("Description").fill(hostile);
  await page.getByText("Retries, rate limit, circuit breaker, access").click();
  await page.getByLabel("Rate limit, attempts per minute").fill("6000");
  await page.getByRole("button", { name: "Add", exact: true }).click();
  await see(page, "shown only once");
  assert.match(await page.locator("#secret").textContent(), /^whsec_/);
  await look(page, "secret");
  await page.goto(base + "/endpoints");
  await page.getByRole("link", { name: mine.url }).click();
  assert.equal(await page.locator("#secret").count(), 0, "the secret is shown again");
  await see(page, "6000 per minute");
});

test("a delivery with its attempts and its request", async () => {
  mine.status = 503;
  mine.body = hostile;
  const id = emit("user.posted_comment", { discussion_id: "d_1", comment_id: "m_1", comment_text: hostile });
  await until("an attempt", () => mine.got.length > 0);
  await page.goto(base + "/deliveries");
  await page.getByLabel("Endpoint").selectOption({ label: mine.url + "/hooks" });
  await page.waitForURL(/endpoint=ep_/);
  await page.getByRole("link", { name: "user.posted_comment" }).click();
  const attempt = page.locator("section[aria-labelledby=h-attempts] tbody tr").first();
  await attempt.locator("[data-label=Outcome]", { hasText: "answered" }).waitFor();
  assert.equal(await attempt.locator("[data-label=Status]").textContent(), "503");
  assert.ok((await page.locator("section[aria-labelledby=h-attempts] pre").textContent()).includes(hostile), "the response is not shown as text");
  const command = await page.locator("#curl").textContent();
  assert.match(command, new RegExp(id));
  await look(page, "delivery");
  // The page refreshes itself.
  mine.status = 200;
  await page.locator(".chip.delivered", { hasText: "delivered" }).first().waitFor({ timeout: 60_000 });
  assert.equal(mine.got.at(-1).headers["webhook-id"], id);
  // The receiver accepts the curl command.
  const before = mine.got.length;
  await new Promise((done, failed) => spawn("sh", ["-c", command.replace(/^curl /, "curl -s ")]).on("exit", (code) => (code ? failed(new Error(`curl: ${code}`)) : done())));
  assert.equal(mine.got.length, before + 1);
  assert.equal(mine.got.at(-1).body, mine.got[0].body);
});

test("replay one, and a selection", async () => {
  const before = mine.got.length;
  await page.getByRole("button", { name: "Replay" }).click();
  await see(page, "1 replayed");
  await until("it arrives again", () => mine.got.length === before + 1);
  for (const n of [2, 3]) emit("user.posted_comment", { discussion_id: "d_1", comment_id: `m_${n}`, comment_text: "hello" });
  await until("both arrive", () => mine.got.length === before + 3);
  await page.goto(base + "/deliveries");
  await page.getByLabel("Endpoint").selectOption({ label: mine.url + "/hooks" });
  await page.waitForURL(/endpoint=ep_/);
  await page.getByLabel("State").selectOption("delivered");
  await page.waitForURL(/state=delivered/);
  const button = page.getByRole("button", { name: "Replay selected" });
  assert.ok(await button.isDisabled());
  await until("all three show", async () => {
    if (await page.locator("tbody tr").count() === 3) return true;
    await page.reload();
  });
  // By keyboard alone.
  await page.getByLabel("Select all settled deliveries").focus();
  await page.keyboard.press("Space");
  await see(page, "3 selected");
  await look(page, "deliveries");
  await button.focus();
  await page.keyboard.press("Enter");
  await see(page, "3 replayed");
  await until("all three arrive again", () => mine.got.length === before + 6);
});

test("page through deliveries", async () => {
  for (let n = 0; n < 60; n += 30) {
    const list = Array.from({ length: 30 }, (_, i) => ({ event: "user.joined_platform", data: { user_id: `u_${n + i}`, email: "a@example.com", name: "Ada" } }));
    const url = JSON.parse(readFileSync(join(state, "local.json"), "utf8")).urls.emit;
    assert.equal((await fetch(url, { method: "POST", body: JSON.stringify(list) })).status, 202);
  }
  await until("60 deliveries", () => JSON.parse(tidings("--json", "delivery", "list", "--state", "delivered", "--limit", "100")).length >= 60);
  await page.goto(base + "/deliveries?type=user.joined_platform");
  assert.equal(await page.locator("tbody tr").count(), 50);
  await page.getByRole("link", { name: "Older" }).click();
  await page.waitForURL(/cursor=/);
  assert.equal(await page.locator("tbody tr").count(), 10);
  await see(page, "End of the list");
});

test("event types, and an event's deliveries", async () => {
  await page.goto(base + "/events");
  await page.locator("details.type summary", { hasText: "user.referred_user" }).click();
  await see(page, "referral_code");
  await look(page, "events");
  const id = emit("user.joined_community", { community_id: "c_7", community_name: hostile });
  await until("the event is listed", () => JSON.parse(tidings("--json", "event", "find", id)).length === 1);
  await page.getByLabel("Search").fill("…" + id.slice(-8));
  await page.getByRole("button", { name: "Find" }).click();
  await page.waitForURL(/q=/);
  await page.locator("tbody tr", { hasText: id.slice(-8) }).getByRole("link", { name: "user.joined_community" }).click();
  await page.waitForURL(new RegExp(id));
  await see(page, "the filter does not match: ");
  await page.locator(".chip.delivered").first().waitFor();
  await look(page, "event");
});

test("send a test", async () => {
  await page.goto(base + "/endpoints");
  await page.getByRole("link", { name: mine.url }).click();
  await page.getByRole("button", { name: "Send test" }).click();
  await page.locator("h1 .chip.delivered", { hasText: "delivered" }).waitFor();
  const request = mine.got.at(-1);
  assert.ok(request.headers["tidings-test"]);
  assert.match(await page.locator("section[aria-labelledby=h-sent] pre").textContent(), new RegExp(request.headers["webhook-id"]));
  assert.match(await page.locator("section[aria-labelledby=h-answer] pre").textContent(), /HTTP\/1.1 200/);
  await look(page, "test");
  mine.status = 401;
  mine.body = hostile;
  await page.getByRole("button", { name: "Send another" }).click();
  await page.locator("h1 .chip.dead", { hasText: "failed" }).waitFor();
  await page.locator(".notice.bad", { hasText: "401" }).waitFor();
  assert.ok((await page.locator("section[aria-labelledby=h-answer] pre").textContent()).includes(hostile), "the response is not shown as text");
  await look(page, "test-failed");
  mine.status = 200;
});

test("edit, disable, enable, rotate", async () => {
  await page.goto(base + "/endpoints");
  await page.getByRole("link", { name: mine.url }).click();
  await page.getByRole("link", { name: "Edit" }).click();
  await page.getByLabel("Description").fill("A receiver of this test");
  await page.getByRole("button", { name: "Save" }).click();
  await see(page, "Endpoint saved");
  await see(page, "A receiver of this test");
  await page.getByRole("button", { name: "Disable" }).click();
  await see(page, "Endpoint disabled");
  assert.equal(await page.locator("dl .chip.disabled").textContent(), "disabled");
  await see(page, "in the console");
  await page.getByRole("button", { name: "Enable" }).click();
  await see(page, "Endpoint enabled");
  assert.equal(await page.locator("dl .chip.enabled").textContent(), "enabled");
  await page.getByRole("button", { name: "Rotate secret" }).click();
  await see(page, "shown only once");
  await see(page, "the previous secret also signs until");
  await look(page, "endpoint");
  await page.goto(base + "/endpoints");
  await look(page, "endpoints");
});

test("the circuit breaker opens, closes, and the backlog is delivered", async () => {
  await page.goto(base + "/");
  await page.getByRole("button", { name: "Break it" }).click();
  await see(page, "Receiver changed");
  for (let n = 0; n < 8; n++) emit("user.registered_event", { event_id: "e_1", registration_id: `r_${n}`, status: "success" });
  await page.locator(".alarm", { hasText: "circuit" }).waitFor({ timeout: 60_000 }); // live, on the overview
  await look(page, "overview-open");
  await page.getByRole("link", { name: "Circuit breakers", exact: true }).click();
  await page.locator(".open-circuit, .half-open-circuit").first().waitFor();
  await look(page, "circuits");
  await page.goto(base + "/");
  await page.getByRole("button", { name: "Fix it" }).click();
  await see(page, "Receiver changed");
  await page.goto(base + "/circuits");
  await see(page, "All circuit breakers are closed", 60_000);
  await page.goto(base + "/deliveries?type=user.registered_event");
  await until("all are delivered", async () => {
    if (await page.locator("tbody .chip.delivered").count() === 8) return true;
    await page.reload();
  }, 60_000);
});

test("close a circuit breaker", async () => {
  mine.status = 500;
  for (let n = 0; n < 8; n++) emit("user.posted_comment", { discussion_id: "d_2", comment_id: `c_${n}`, comment_text: "hello" });
  await page.goto(base + "/circuits");
  const row = page.locator("tr", { hasText: mine.url });
  await row.waitFor({ timeout: 60_000 });
  mine.status = 200;
  const before = mine.got.length;
  await row.getByRole("button", { name: "Close" }).click();
  await see(page, "Circuit breaker closed");
  await until("the backlog is sent", () => new Set(mine.got.slice(before).map((r) => r.headers["webhook-id"])).size >= 8);
});

test("discussions: extend one, close one", async () => {
  tidings("play", "--members", "30", "--hours", "12", "--speed", "20000x", "--seed", "5");
  await page.goto(base + "/discussions");
  const row = page.locator("tbody tr").last();
  const name = await row.locator(".id").first().textContent();
  await look(page, "discussions");
  await row.getByRole("combobox").selectOption("30");
  await row.getByRole("button", { name: "Extend" }).click();
  await see(page, "Discussion extended");
  const extended = page.locator("tr", { hasText: name.split(" ")[0] + " " }).first();
  assert.equal((await extended.locator("[data-label='Extended by']").textContent()).includes("–"), false, "the table does not say who extended it");
  await page.goto(base + "/deliveries?type=discussion.extended");
  await until("discussion.extended is delivered", async () => {
    if (await page.locator("tbody .chip.delivered").count() > 0) return true;
    await page.reload();
  });
  await page.goto(base + "/discussions");
  await page.locator("tbody tr").last().getByRole("button", { name: /^Close now/ }).click();
  await see(page, "Discussion closed");
  await see(page, "by hand");
  await page.getByRole("link", { name: "Expiring within a day" }).click();
  await page.waitForURL(/view=expiring/);
  await look(page, "discussions-expiring");
});

test("discussions: two admins extend one at the same time", async () => {
  const other = await login("admin", "Grace");
  await page.goto(base + "/discussions");
  await other.goto(base + "/discussions");
  const id = (await page.locator("tbody tr").last().locator(".id").first().textContent()).split(" ")[0];
  const extend = async (admin) => {
    const row = admin.locator("tr", { hasText: id + " " }).first();
    await row.getByRole("combobox").selectOption("7");
    await row.getByRole("button", { name: "Extend" }).click();
  };
  await extend(page);
  await see(page, "Discussion extended");
  const answer = other.waitForResponse((r) => r.url().endsWith("/extend"));
  await extend(other);
  assert.equal((await answer).status(), 409);
  await see(other, "changed in the meantime");
  await see(other, "it is now");
  const until = page.locator("tr", { hasText: id + " " }).first().locator("time").first();
  const end = await until.getAttribute("datetime");
  await page.reload();
  assert.equal(await until.getAttribute("datetime"), end, "the discussion was extended twice");
  await other.context().close();
});

test("the overview", async () => {
  await page.goto(base + "/");
  await page.locator("#chart canvas").waitFor();
  await look(page, "overview");
  const timing = await page.evaluate(() => {
    const all = [performance.getEntriesByType("navigation")[0], ...performance.getEntriesByType("resource")];
    return { ms: all[0].responseEnd, bytes: all.reduce((sum, e) => sum + (e.encodedBodySize || 0), 0) };
  });
  assert.ok(timing.bytes < 100_000, `the first page and its assets are ${timing.bytes} bytes`);
  console.log(`the overview: ${timing.bytes} bytes with all its assets, answered after ${Math.round(timing.ms)} ms`);
});

// put writes an item into a table of the runner, with the access key of this run.
async function put(table, item) {
  const { dynamodb_url, access_key } = JSON.parse(readFileSync(join(state, "local.json"), "utf8"));
  const answer = await fetch(dynamodb_url, {
    method: "POST", body: JSON.stringify({ TableName: table, Item: item }),
    headers: {
      "Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": "DynamoDB_20120810.PutItem", "X-Amz-Date": "20260101T000000Z",
      Authorization: `AWS4-HMAC-SHA256 Credential=${access_key}/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0`,
    },
  });
  assert.equal(answer.status, 200, await answer.text());
}

// storeDay writes the statistics of a past day, as the health function does: the item
// of pkg/store/dynamoitem's EncodeDay. A letter is a count; "h" is the latencies of half
// a second to a second, "o" those of one to two minutes.
async function storeDay(ago, counts) {
  const at = new Date(Date.now() - ago * 86_400_000);
  const { stack } = JSON.parse(readFileSync(join(state, "local.json"), "utf8"));
  const item = { key: { S: "stats-day#" + at.toISOString().slice(0, 10) }, summed_at: { N: String(at.getTime()) } };
  for (const [name, n] of Object.entries({ complete: 1, open_circuits: 0, ...counts })) item[name] = { N: String(n) };
  await put(stack + "-Control", item);
}

test("metrics, now and by day", async () => {
  for (let ago = 1; ago < 26; ago++) await storeDay(ago, { D: 1000 + ago, X: ago % 3, C: 500, h: 1000 + ago });
  await storeDay(4, { D: 949, X: 51, C: 99, E: 1, o: 949, open_circuits: 2 });
  await page.goto(base + "/");
  await page.getByRole("link", { name: "Metrics" }).click();
  await page.waitForURL(base + "/metrics");
  const now = page.locator("#now tbody tr");
  assert.deepEqual(await now.locator("[data-label=Metric]").allTextContents(),
    ["Delivery success rate", "Average latency (p95)", "Failed deliveries (24 h)", "Circuit breakers open", "Events captured"]);
  assert.deepEqual(await now.locator("[data-label=Target]").allTextContents(), ["> 95 %", "< 1 min", "< 50", "0", "100 %"]);
  assert.match(await now.nth(4).locator("[data-label=Status]").textContent(), /^(ok|no data)$/);
  // The breakers that the tests above opened are closed again, and today remembers them.
  await until("no circuit breaker is open", async () => {
    if (await now.nth(3).locator("[data-label=Status]").textContent() === "ok") return true;
    await page.reload();
  });
  // A missed target is said in words, not only by colour.
  const days = page.locator("#days tbody tr");
  assert.equal(await days.count(), 30);
  const missed = days.nth(4);
  for (const [column, value] of Object.entries({ "Success rate": /^94.9 %/, "Latency (p95)": /^1m\d+s/, "Failed deliveries": /^51/, "Breakers open": /^2/, Captured: /^99 %/ })) {
    const text = await missed.locator(`[data-label="${column}"]`).textContent();
    assert.match(text, value);
    assert.match(text, /missed/, `${column} of the day that missed every target`);
  }
  assert.equal(await days.nth(5).getByText("missed").count(), 0);
  await now.nth(0).getByRole("img", { name: /^Last 30 days: \d+ ok, [12] missed, [45] without data$/ }).waitFor();
  await look(page, "metrics");
});

test("capture: a failed change is listed, shown and captured again", async () => {
  await put("tidings-local-Platform", {
    pk: { S: "DISCUSSION#d_lost" }, sk: { S: "COMMENT#m_lost" }, kind: { S: "comment" }, comment_text: { S: "<b>a comment without ids</b>" },
  });
  await until("the change is kept", async () => {
    await page.goto(base + "/capture");
    return page.getByRole("link", { name: "comment INSERT" }).isVisible();
  });
  await look(page, "capture");
  await page.getByRole("link", { name: "comment INSERT" }).click();
  await see(page, "<b>a comment without ids</b>");
  await look(page, "failed-change");
  const answer = page.waitForResponse((r) => r.url().endsWith("/redrive"));
  await page.getByRole("button", { name: "Capture again" }).click();
  assert.equal((await answer).status(), 409);
  await see(page, "was not captured");
  const other = await login("admin", "Grace");
  await other.goto(base + "/");
  assert.equal(await other.getByRole("link", { name: "Capture", exact: true }).count(), 0);
  await other.context().close();
});

test("capture rules: checked, applied, captured by, removed", async () => {
  await page.goto(base + "/capture");
  await page.getByRole("link", { name: "Capture rules" }).click();
  await look(page, "capture-rules");
  const rules = (kind) => `rules:
  - event: user.posted_comment
    when: change == "insert" && new.kind == "${kind}" # ${hostile}
    data: {discussion_id: id(new.discussion_id), comment_id: id(new.note_id), comment_text: new.text}
`;
  const text = page.getByLabel("Rules (YAML)");
  await page.getByLabel("Name").fill("notes");
  await text.fill(rules("note").replace("new.text", "news.text"));
  await page.getByRole("button", { name: "Apply" }).click();
  await see(page, "news.text");
  assert.match(await text.inputValue(), /news\.text/, "what was written is lost");
  await look(page, "capture-rules-wrong");
  await text.fill(rules("note"));
  await page.getByRole("button", { name: "Check" }).click();
  await see(page, "What would change");
  await page.getByRole("button", { name: "Apply" }).click();
  await see(page, "Capture rules changed");
  assert.equal(new URL(page.url()).searchParams.get("file"), "notes");
  assert.equal((await text.inputValue()).trim(), rules("note").trim());
  let notes = 0;
  await until("a change becomes an event", async () => { // one before the rule is read does not
    await put("tidings-local-Platform", {
      pk: { S: `NOTE#${++notes}` }, sk: { S: "NOTE" }, kind: { S: "note" }, discussion_id: { S: "d_own_rule" }, note_id: { S: "n_1" }, text: { S: hostile },
    });
    return JSON.parse(tidings("--json", "event", "find", "d_own_rule")).length > 0;
  });
  await text.fill(rules("memo"));
  await page.getByRole("button", { name: "Check" }).click();
  await page.locator("section[aria-labelledby=h-plan] pre", { hasText: 'new.kind == "memo"' }).waitFor();
  await look(page, "capture-rules-diff");
  await page.getByRole("button", { name: "Remove notes" }).click();
  await see(page, "Capture rules changed");
  assert.equal(await page.getByRole("button", { name: "Remove notes" }).count(), 0);
});

test("event types: checked, applied, delivered, deprecated, removed", async () => {
  const definition = (...values) => JSON.stringify({
    title: "order.paid", description: hostile, "x-subject": "order_id", type: "object",
    properties: { order_id: { type: "string", description: hostile }, status: { enum: values } },
    required: ["order_id"], additionalProperties: false, examples: [{ order_id: "o_1", status: "paid" }],
  }, null, 2);
  await page.goto(base + "/catalog");
  await page.getByRole("link", { name: "Change event types" }).click();
  const text = page.getByLabel("Definitions"), plan = page.locator("section[aria-labelledby=h-plan]");
  await text.fill(definition("paid", "late").replace('"string"', '"text"'));
  await page.getByRole("button", { name: "Check" }).click();
  await see(page, "order.paid: line 8, column 7: value must be one of");
  assert.match(await text.inputValue(), /"text"/, "what was written is lost");
  await text.fill("");
  await page.locator("#files").setInputFiles({ name: "order.paid.json", mimeType: "application/json", buffer: Buffer.from(definition("paid", "late")) });
  await page.getByRole("button", { name: "Check" }).click();
  await plan.getByText("add order.paid").waitFor();
  assert.equal(await text.inputValue(), definition("paid", "late"));
  await plan.getByRole("button", { name: "Apply" }).click();
  await see(page, "Event types changed");
  await look(page, "event-types");

  // It is emitted, filtered and delivered.
  const added = JSON.parse(tidings("--json", "endpoint", "add", mine.url + "/orders", "--types", "order.*", "--filter", '{"data":{"status":["late"]}}'));
  await until("the type is accepted", () => {
    try {
      return emit("order.paid", { order_id: "o_early", status: "paid" });
    } catch {
      return false;
    }
  });
  await until("an order is delivered", () => { // one before the endpoint is read is not
    emit("order.paid", { order_id: "o_late", status: "late" });
    return mine.got.some((r) => r.body.includes("o_late"));
  });
  assert.ok(!mine.got.some((r) => r.body.includes("o_early")), "the filter did not keep it");

  // A change that breaks the endpoint is shown with it, and made only nevertheless.
  await page.goto(base + "/catalog/types/order.paid");
  await page.getByRole("link", { name: "Change", exact: true }).click();
  await text.fill(definition("paid", "overdue"));
  await page.getByRole("button", { name: "Check" }).click();
  await plan.getByText("breaks receivers").waitFor();
  const id = await plan.locator("tr", { hasText: "its filter names data.status" }).locator("[data-label=Endpoint]").textContent();
  assert.match(JSON.stringify(added), new RegExp(id));
  await look(page, "event-types-plan");
  await plan.getByRole("button", { name: "Apply nevertheless" }).click();
  await see(page, "Event types changed");

  await page.getByLabel("Use instead").fill("user.joined_platform");
  await page.getByRole("button", { name: "Deprecate …" }).click();
  await plan.getByRole("button", { name: "Deprecate" }).click();
  await see(page, ": use user.joined_platform.");
  await page.getByRole("button", { name: "Take the mark away …" }).click();
  await plan.getByRole("button", { name: "Take the mark away" }).click();
  await see(page, "Event types changed");
  await page.getByRole("button", { name: "Remove the type …" }).click();
  await plan.getByText("1 enabled endpoint subscribes to it").waitFor();
  await plan.getByRole("button", { name: "Remove nevertheless" }).click();
  await see(page, "Event types changed");
  assert.equal(await page.getByRole("link", { name: "order.paid" }).count(), 0);
  // One that comes with Tidings is switched off, and on again.
  await page.getByRole("link", { name: "user.referred_user" }).click();
  await page.getByRole("button", { name: "Remove the type …" }).click();
  await plan.getByRole("button", { name: /^Remove/ }).click();
  await see(page, "is switched off");
  await page.getByRole("button", { name: "Switch on user.referred_user" }).click();
  await plan.getByRole("button", { name: "Switch on" }).click();
  await see(page, "Event types changed");
  await page.getByRole("button", { name: "Accept them" }).click();
  await see(page, "Events of types without a definition are accepted");
  await page.getByRole("button", { name: "Refuse them" }).click();
  await see(page, "Events of types without a definition are refused");
  tidings("endpoint", "remove", id);
});

test("by keyboard", async () => {
  await page.goto(base + "/");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to content");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
});

test("a viewer can change nothing", async () => {
  const viewer = await login("viewer", "Vera");
  for (const path of ["/", "/metrics", "/endpoints", "/deliveries", "/catalog", "/catalog/types/user.registered_event", "/circuits", "/discussions", "/audit"]) {
    await viewer.goto(base + path);
    assert.equal(await viewer.locator("main button").filter({ hasNotText: "Show" }).count(), 0, `${path} offers a viewer a change`);
  }
  await viewer.goto(base + "/endpoints/new");
  await see(viewer, "logged in as a viewer");
  await viewer.context().close();
});

test("the audit log", async () => {
  await page.goto(base + "/audit");
  for (const action of ["discussion.close", "circuit.close", "endpoint.rotate_secret", "receiver.configure"]) await see(page, action);
  await look(page, "audit");
});

test("delete an endpoint; log out", async () => {
  await page.goto(base + "/endpoints");
  await page.getByRole("link", { name: mine.url }).click();
  await page.getByRole("button", { name: "Delete" }).click();
  await see(page, "Endpoint deleted");
  assert.equal(await page.getByRole("link", { name: mine.url }).count(), 0);
  await page.getByRole("button", { name: "Log out" }).click();
  await see(page, "You are logged out");
  await page.goto(base + "/");
  assert.equal(new URL(page.url()).pathname, "/login");
});

test("the browser reported no errors", () => {
  assert.deepEqual(problems, []);
});
