import assert from 'node:assert/strict';
import { test } from 'node:test';
import { captureLog } from '../../test/support/log.ts';
import { OciError } from '../oci/error.ts';

test('promise 18: ids of pull secrets are in no log line above debug, wherever they are written', async () => {
  const { log, entries } = await captureLog();
  const ids = `by-${'a'.repeat(26)}-${'z'.repeat(26)}`;
  const repository = `${ids}/corp/acme/app`;
  const error = new OciError('DENIED', `${repository} may not be read`, { cause: new Error(`GET /v2/${repository}/manifests/1`) });
  for (const level of ['debug', 'info', 'warn', 'error'] as const)
    log[level]({ event: 'x', repository, path: `/v2/${repository}`, error }, `about ${repository}`);
  const [debug, ...others] = entries().map((entry) => JSON.stringify(entry));
  assert.equal(debug?.split(ids).length, 6);
  assert.equal(others.length, 3);
  for (const line of others) {
    assert.doesNotMatch(line, /a{26}|z{26}/);
    assert.equal(line.split('by-…/corp/acme/app').length, 6);
  }
});

test('text that only looks like an id is not redacted', async () => {
  const { log, entries } = await captureLog();
  log.info({ event: 'x', host: 'stand-by-registry.example.com', name: 'by-hand' }, 'y');
  assert.deepEqual([entries()[0]?.['host'], entries()[0]?.['name']], ['stand-by-registry.example.com', 'by-hand']);
});
