import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseReference, parseRepository } from '../oci/reference.ts';
import { createMemory } from '../testing/memory-registry.ts';
import { routed } from './routed.ts';

test('names without an upstream, or without a repository, get an error that says so', async () => {
  const registry = routed({ hub: { registry: createMemory().registry } });
  const { signal } = new AbortController();
  const resolve = (name: string) => registry.resolve(parseRepository(name), parseReference('1'), { signal });
  await assert.rejects(resolve('other/app'), { code: 'NAME_UNKNOWN', message: /no upstream is named other: .* one of hub/ });
  await assert.rejects(resolve('hub'), { code: 'NAME_UNKNOWN', message: /hub is an upstream; the repository is missing: .* one of hub/ });
});
