import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { countBytes } from './count-bytes.ts';

async function* slowly() {
  yield Buffer.alloc(1000);
  await delay(1100);
  yield Buffer.alloc(200);
  yield Buffer.alloc(30);
}

test('the bytes of a body are reported while it arrives, and each of them once', async () => {
  const reports: number[] = [];
  const seen: number[] = [];
  const sum = () => reports.reduce((total, bytes) => total + bytes, 0);
  for await (const _ of countBytes(slowly(), (bytes) => reports.push(bytes))) seen.push(sum());
  assert.ok((seen[1] ?? 0) >= 1200, `before the end: ${seen.join()}`);
  assert.equal(sum(), 1230);
});

test('the bytes of a body that its reader leaves are reported, too', async () => {
  const reports: number[] = [];
  for await (const _ of countBytes(slowly(), (bytes) => reports.push(bytes))) break;
  assert.deepEqual(reports, [1000]);
});
