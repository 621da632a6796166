import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startFakeNode } from '../../test/support/fake-node.ts';
import { captureLog } from '../../test/support/log.ts';
import { createRawTransport } from '../http/raw/raw-transport.ts';
import { createNodes } from './nodes.ts';

const { log } = await captureLog();
const transport = createRawTransport({ connectTimeout: 1000, plain: true });

test('a node about which another one complains is not used until it has answered again', async () => {
  await using fake = await startFakeNode();
  const nodes = createNodes({ transport, log });
  const node = nodes.meet(fake.node);
  assert.ok(!nodes.isUsable(node), 'it has not answered so far');
  await nodes.answer([node]);
  assert.ok(nodes.isUsable(node));
  nodes.complain(node.address, '10.0.0.1:25002');
  assert.ok(!nodes.isUsable(node), 'it is being checked');
  await nodes.answer([node]);
  assert.ok(nodes.isUsable(node), 'one complaint about a node that answers does not count');
  nodes.complain(node.address, '10.0.0.2:25002');
  await nodes.answer([node]);
  assert.ok(!nodes.isUsable(node), 'two other nodes cannot reach it');
  assert.equal(nodes.answer([node]), undefined, 'no question is running');
});

test('a node that does not have its announced key is never used', async () => {
  await using fake = await startFakeNode();
  const nodes = createNodes({ transport, log });
  const node = nodes.meet({ ...fake.node, key: 'x'.repeat(43) });
  await nodes.answer([node]);
  assert.ok(!nodes.isUsable(node));
  assert.equal(nodes.count(), 0);
});
