import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { test } from 'node:test';
import { captureLog } from '../../../test/support/log.ts';
import { freePort, temporaryDirectory } from '../../../test/support/temporary.ts';
import { toolPath } from '../../../test/tools/tools.ts';
import { openCopies } from '../subscription/copies.ts';
import { createRedactor } from '../subscription/redact.ts';
import { startInstance } from './instance.ts';
import { createMihomo } from './mihomo.ts';

for (const [taken, name] of ['proxy', 'shared', 'controller'].entries()) {
  test(`when something takes the port of the ${name} before mihomo does, mihomo starts on other ports at once`, async () => {
    await using temporary = await temporaryDirectory();
    await using other = createServer((socket) => socket.destroy()).listen(0, '127.0.0.1');
    await once(other, 'listening');
    const { port } = other.address() as AddressInfo;
    const { log } = await captureLog();
    const copies = await openCopies(temporary.path, '');
    const binary = await toolPath('mihomo');
    const mihomo = await createMihomo({ binary, directory: copies.directory, log, redactor: createRedactor(), env: {} });
    const asked: number[][] = [];
    const instance = await startInstance(
      { config: { rules: ['MATCH,REJECT'], listeners: [{ name: 'shared', type: 'mixed' }] }, main: 'REJECT' },
      {
        mihomo,
        copies,
        secret: 'x',
        preferProviders: false,
        intervalMs: 60_000,
        preferred: () => undefined,
        left: () => undefined,
        async findPorts(count) {
          const ports = await Promise.all(Array.from({ length: count }, freePort));
          if (asked.length === 0) ports[taken] = port;
          asked.push(ports);
          return ports;
        },
      },
    );
    assert.deepEqual(Object.values(instance.ports), asked[1]);
    assert.equal(asked.length, 2);
    await instance.stop();
  });
}
