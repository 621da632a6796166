import assert from 'node:assert/strict';
import { mkdir, readdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { IN_MEMORY, temporaryDirectory } from '../../../test/support/temporary.ts';
import { readAll } from '../../io/body.ts';
import { createRunningHash } from '../../io/running-hash.ts';
import { storeConformance } from '../../testing/store-suite.ts';
import { bytesSource } from '../store.ts';
import { filesystemUploads } from './filesystem-uploads.ts';
import { filesystem } from './filesystem.ts';

const { signal } = new AbortController();
const MIB = 2 ** 20;

async function open(parent?: string) {
  const temporary = await temporaryDirectory(parent);
  const files = await filesystem({ directory: temporary.path });
  const store = filesystemUploads(files);
  return {
    store,
    directory: files.directory,
    left: () => readdir(files.temporaryDirectory),
    async [Symbol.asyncDispose]() {
      await store.close();
      await temporary[Symbol.asyncDispose]();
    },
  };
}

storeConformance('filesystem with uploads', open);

/** Where syncing takes no time, small files are written in another way. */
const PARENTS = [tmpdir(), IN_MEMORY];

for (const parent of PARENTS) {
  test(`objects written in order are all there; if one of them fails, those behind it are not: ${parent}`, async () => {
    await using made = await open(parent);
    const { store, directory, left } = made;
    const object = (name: string, content: string) => ({ key: `v1/repos/local/${name}`, bytes: Buffer.from(content) });
    const contentOf = async (name: string) => (await store.readSmall(object(name, '').key, 1000, { signal }))?.toString();
    const all = Array.from(
      { length: 40 },
      (_, n) => [object(`a/_tags/${n}`, `first ${n}`), object(`b/${n}/_tags/1`, `second ${n}`)] as const,
    );
    await Promise.all(all.map((objects) => store.writeInOrder(objects, { signal })));
    for (const n of all.keys()) {
      assert.equal(await contentOf(`a/_tags/${n}`), `first ${n}`);
      assert.equal(await contentOf(`b/${n}/_tags/1`), `second ${n}`);
    }
    await mkdir(join(directory, 'v1/repos/local/a/_tags/directory/content'), { recursive: true });
    const failing = [object('a/_tags/before', ''), object('a/_tags/directory', ''), object('a/_tags/after', '')] as const;
    const other = store.writeInOrder([object('a/_tags/0', 'new')], { signal });
    await assert.rejects(store.writeInOrder(failing, { signal }), { code: 'UNAVAILABLE' });
    await other;
    assert.deepEqual([await contentOf('a/_tags/before'), await contentOf('a/_tags/after')], ['', undefined]);
    assert.equal(await contentOf('a/_tags/0'), 'new');
    assert.deepEqual(await left(), []);
  });
}

for (const parent of PARENTS) {
  test(`what follows a composed object is there if the object is, and not before: ${parent}`, async () => {
    await using made = await open(parent);
    const { store, directory, left } = made;
    const blob = 'v1/blobs/sha256/aa/aa';
    const record = { key: 'v1/repos/local/a/_members/aa', bytes: Buffer.from('record') };
    const part = async (key: string, content: string) => {
      await store.write(key, bytesSource(Buffer.from(content)), { signal, volatile: true });
      return { key, size: content.length };
    };
    const contentOf = async (key: string) => (await store.readSmall(key, 1000, { signal }))?.toString();
    const parts = [await part('v1/uploads/local/a/_0/0', 'first'), await part('v1/uploads/local/a/_0/1', 'second')];

    await assert.rejects(store.writeInOrder([{ key: blob, parts: [{ key: 'v1/uploads/local/a/_0/none', size: 1 }] }, record], { signal }), {
      code: 'UNAVAILABLE',
    });
    assert.deepEqual([await contentOf(blob), await contentOf(record.key), await left()], [undefined, undefined, []]);
    for (const [some, content] of [
      [parts.slice(0, 1), 'first'],
      [parts, 'firstsecond'],
      [parts.slice(1), 'second'], // replaces it
    ] as const) {
      await store.writeInOrder([{ key: blob, parts: some }, record], { signal });
      assert.deepEqual([await contentOf(blob), await contentOf(record.key), await left()], [content, 'record', []]);
      await store.remove(record.key, { signal });
    }
    await Promise.all(Array.from({ length: 8 }, () => store.writeInOrder([{ key: blob, parts: parts.slice(0, 1) }, record], { signal })));
    assert.deepEqual([await contentOf(blob), await contentOf(record.key), await left()], ['first', 'record', []]);
    for (const { key, size } of parts) assert.equal((await store.stat(key, { signal }))?.size, size, 'parts stay');

    await mkdir(join(directory, 'v1/repos/local/b/content'), { recursive: true });
    await assert.rejects(
      store.writeInOrder(
        [
          { key: blob, parts },
          { ...record, key: 'v1/repos/local/b' },
        ],
        { signal },
      ),
      {
        code: 'UNAVAILABLE',
      },
    );
    assert.deepEqual([await contentOf(blob), await left()], ['firstsecond', []]);
  });
}

/** Chunks with memory of their own, as Node's HTTP parser makes them. */
async function* chunksOf(bytes: Buffer, size: number): AsyncGenerator<Uint8Array[]> {
  for (let at = 0; at < bytes.length; at += size) yield [Uint8Array.from(bytes.subarray(at, at + size))];
}

test('streams of every chunk size are stored byte for byte, and joined in their order', async () => {
  await using made = await open();
  const { store } = made;
  const bytes = Buffer.from(Array.from({ length: 3 * MIB + 1 }, (_, index) => index % 251));
  const parts = [];
  for (const size of [1000, 2 ** 16, MIB, bytes.length]) {
    const key = `v1/uploads/local/a/_0/${size}`;
    assert.equal(
      await store.writeStream(key, chunksOf(bytes, size), { signal, volatile: size > 1000, hash: createRunningHash('sha256') }),
      bytes.length,
    );
    parts.push({ key, size: bytes.length });
    const found = await store.read(key, { signal });
    assert.ok(found !== undefined && bytes.equals((await readAll(found.body, bytes.length)) ?? Buffer.alloc(0)), String(size));
  }
  for (const count of [1, parts.length]) {
    await store.compose(parts.slice(0, count), 'v1/blobs/sha256/aa/aa', { signal });
    const found = await store.read('v1/blobs/sha256/aa/aa', { signal });
    const expected = Buffer.concat(Array.from({ length: count }, () => bytes));
    assert.ok(found !== undefined && expected.equals((await readAll(found.body, expected.length)) ?? Buffer.alloc(0)));
  }
});

test('a failed stream leaves no file, and its error is passed on', async () => {
  await using made = await open();
  const { store, left } = made;
  async function* failing(): AsyncGenerator<Uint8Array[]> {
    yield [new Uint8Array(MIB)];
    throw new Error('the client is gone');
  }
  await assert.rejects(store.writeStream('v1/uploads/local/a/_0/0', failing(), { signal, hash: createRunningHash('sha256') }), {
    message: 'the client is gone',
  });
  assert.equal(await store.stat('v1/uploads/local/a/_0/0', { signal }), undefined);
  assert.deepEqual(await left(), []);
});

for (const parent of PARENTS) {
  test(`concurrent reads of small objects return the last written content, even while their directories are removed: ${parent}`, async () => {
    await using made = await open(parent);
    const { store, left } = made;
    const read = (key: string) => store.readSmall(key, 1000, { signal });
    assert.equal(await read('v1/repos/local/a/_tags/none'), undefined);
    await Promise.all(
      Array.from({ length: 50 }, async (_, index) => {
        const key = `v1/repos/local/${index % 5}/_tags/${index}`;
        for (const volatile of [false, true]) {
          const bytes = Buffer.from(`${index} ${volatile}`);
          await store.write(key, bytesSource(bytes), { signal, volatile });
          assert.ok(bytes.equals((await read(key)) ?? Buffer.alloc(0)));
          await store.remove(key, { signal });
          assert.equal(await read(key), undefined);
        }
      }),
    );
    await store.write('v1/repos/local/a/_tags/large', bytesSource(new Uint8Array(1001)), { signal });
    assert.equal(await read('v1/repos/local/a/_tags/large'), undefined, 'it is larger than what the reader takes');
    assert.deepEqual(await left(), []);
  });
}
