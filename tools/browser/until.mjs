// What the tests of the browser share.
import assert from "node:assert/strict";

// until polls a condition and returns what it returned.
export async function until(what, check, ms = 60_000) {
  const end = Date.now() + ms;
  for (;;) {
    const found = await check();
    if (found) return found;
    assert.ok(Date.now() < end, `timed out waiting for: ${what}`);
    await new Promise((done) => setTimeout(done, 100));
  }
}
