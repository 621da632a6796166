import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { open as openFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { addAbortSignal, PassThrough } from 'node:stream';
import { describe, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { temporaryDirectory } from '../../test/support/temporary.ts';
import { isOciError } from '../oci/error.ts';
import type { RangeRequest } from '../oci/range.ts';
import { bytesSource, fileSource, type Store, type StoreSource } from '../store/store.ts';

export interface ConformingStore extends AsyncDisposable {
  /** Empty. */
  store: Store;
}

const MIB = 2 ** 20;
const context = { signal: new AbortController().signal };
/** As a repository's records and its neighbours' would lie. In order. */
const KEYS = [
  'v1/blobs/sha256/aa/aa01',
  'v1/blobs/sha256/ab/ab01',
  'v1/blobs/sha256/ab/ab02',
  'v1/repos/hub/a-b/_tags/1',
  'v1/repos/hub/a.b/_tags/1',
  'v1/repos/hub/a/_members/sha256/00',
  'v1/repos/hub/a/_tags/V1.2_x-y',
  'v1/repos/hub/a/_tags/_',
  'v1/repos/hub/a/_tags/v1.2_x-y',
  'v1/repos/hub/a/b/_tags/1',
  'v1/repos/hub/a0/_tags/1',
  'v1/repos/hub/a__b/_tags/1',
  'v1/used/2026-03-01/hub/a/sha256:00',
];

export interface SuiteOptions {
  /** False: a reader may see half of an object that is being overwritten, and a broken connection.
   *  Content under a digest never changes, so that the registry can use such a store. */
  overwritesAtomically?: boolean;
}

/** The behaviour that every store must have. `open` creates an empty one. */
export function storeConformance(
  name: string,
  open: () => Promise<ConformingStore>,
  { overwritesAtomically = true }: SuiteOptions = {},
): void {
  void describe(`${name} is a store`, () => {
    void test('what was never written is absent, and no error', async () => {
      await using made = await open();
      const { store } = made;
      assert.equal(await store.stat('v1/nothing/here', context), undefined);
      assert.equal(await store.read('v1/nothing/here', context), undefined);
      await store.remove('v1/nothing/here', context);
      assert.deepEqual(await keysOf(store, ''), []);
      assert.deepEqual(await keysOf(store, 'v1/nothing/'), []);
    });

    void test('objects of every size come back byte for byte', async () => {
      await using made = await open();
      const { store } = made;
      for (const size of [0, 1, 65_535, 65_536, 65_537, MIB, 2 * MIB, 3 * MIB + 7]) {
        const bytes = randomBytes(size);
        await store.write('v1/object', bytesSource(bytes), context);
        const found = await store.stat('v1/object', context);
        assert.equal(found?.size, size);
        assert.ok(Math.abs(Date.now() - found.modified.getTime()) < 60_000, 'modified now');
        assert.ok(bytes.equals(await readAll(store, 'v1/object')), `${size} bytes`);
      }
    });

    void test('64 MiB come back byte for byte to who still looks at one chunk while asking for the next', async () => {
      await using made = await open();
      const { store } = made;
      const piece = randomBytes(MIB);
      const source = { size: 64 * MIB, open: () => Promise.resolve(repeat(piece, 64)) };
      await store.write('v1/large', source, context);
      const expected = createHash('sha256');
      for await (const chunk of repeat(piece, 64)) expected.update(chunk);
      const actual = createHash('sha256');
      let before: Uint8Array | undefined;
      const content = await store.read('v1/large', context);
      assert.equal(content?.size, 64 * MIB);
      for await (const chunk of content.body) {
        if (before !== undefined) actual.update(before);
        before = chunk;
      }
      if (before !== undefined) actual.update(before);
      assert.equal(actual.digest('hex'), expected.digest('hex'));
    });

    void test('a range holds just its bytes, and says the size of the whole', async () => {
      await using made = await open();
      const { store } = made;
      const bytes = randomBytes(3 * MIB);
      const last = bytes.length - 1;
      await store.write('v1/object', bytesSource(bytes), context);
      const ranges: [RangeRequest, start: number, end: number][] = [
        [{ start: 0, end: 0 }, 0, 0],
        [{ start: 0, end: last }, 0, last],
        [{ start: 0 }, 0, last],
        [{ start: 1, end: 1 }, 1, 1],
        [{ start: last, end: last }, last, last],
        [{ start: last }, last, last],
        [{ start: MIB - 1, end: MIB }, MIB - 1, MIB],
        [{ start: 5, end: 2 * MIB + 5 }, 5, 2 * MIB + 5],
        [{ start: 2 * MIB, end: last }, 2 * MIB, last],
        [{ start: 7, end: last + 1 }, 7, last],
        [{ start: 7, end: 1e15 }, 7, last],
        [{ suffix: 1 }, last, last],
        [{ suffix: MIB + 1 }, last - MIB, last],
        [{ suffix: bytes.length }, 0, last],
        [{ suffix: 1e15 }, 0, last],
      ];
      for (const [range, start, end] of ranges) {
        const content = await store.read('v1/object', { ...context, range });
        assert.equal(content?.size, bytes.length);
        assert.deepEqual(content.range, { start, end });
        assert.ok(bytes.subarray(start, end + 1).equals(await gather(content.body)), JSON.stringify(range));
      }
      const whole = await store.read('v1/object', context);
      assert.equal(whole?.range, undefined);
      await whole?.body[Symbol.asyncIterator]().return?.();
    });

    void test('a range that selects no byte is RANGE_INVALID and tells the size of the object; of an absent object it is absent', async () => {
      await using made = await open();
      const { store } = made;
      await store.write('v1/object', bytesSource(Buffer.from('12345')), context);
      await store.write('v1/empty', bytesSource(Buffer.alloc(0)), context);
      for (const [key, size, range] of [
        ['v1/object', 5, { start: 5 }],
        ['v1/object', 5, { start: 5, end: 5 }],
        ['v1/object', 5, { start: 1e15 }],
        ['v1/object', 5, { suffix: 0 }],
        ['v1/empty', 0, { start: 0 }],
        ['v1/empty', 0, { start: 0, end: 9 }],
      ] as const)
        await assert.rejects(
          store.read(key, { ...context, range }),
          (error) => isOciError(error, 'RANGE_INVALID') && error.size === size,
          `${JSON.stringify(range)} of ${key}`,
        );
      assert.equal(await store.read('v1/nothing/here', { ...context, range: { start: 0 } }), undefined);
    });

    if (overwritesAtomically) {
      void test('a reader beside writers always sees one whole version', async () => {
        await using made = await open();
        const { store } = made;
        const version = (fill: number): Buffer => Buffer.alloc(2 * MIB + fill, fill);
        await store.write('v1/object', bytesSource(version(1)), context);
        let writing = true;
        const reader = async (): Promise<void> => {
          while (writing) {
            const bytes = await readAll(store, 'v1/object');
            assert.ok(bytes.equals(version(bytes[0] ?? 0)), 'one version');
            await turn(); // memory answers within one turn of the event loop, in which no other caller can write
          }
        };
        const readers = [reader(), reader()];
        for (let fill = 2; fill < 12; fill++) await store.write('v1/object', bytesSource(version(fill)), context);
        writing = false;
        await Promise.all(readers);
      });
    }

    void test('of writers at once one wins, wholly', async () => {
      await using made = await open();
      const { store } = made;
      const versions = [1, 2, 3, 4, 5, 6].map((fill) => Buffer.alloc(MIB + fill, fill));
      await Promise.all(versions.map((bytes) => store.write('v1/new/object', bytesSource(bytes), context)));
      const bytes = await readAll(store, 'v1/new/object');
      assert.ok(versions.some((version) => version.equals(bytes)));
    });

    void test('a reader that has begun is not disturbed by a removal', async () => {
      await using made = await open();
      const { store } = made;
      const bytes = randomBytes(8 * MIB);
      await store.write('v1/object', bytesSource(bytes), context);
      const content = await store.read('v1/object', context);
      assert.ok(content);
      const iterator = content.body[Symbol.asyncIterator]();
      const first = await iterator.next();
      const copy = Buffer.from(first.value as Uint8Array);
      await store.remove('v1/object', context);
      assert.equal(await store.stat('v1/object', context), undefined);
      const rest = await gather({ [Symbol.asyncIterator]: () => iterator });
      assert.ok(bytes.equals(Buffer.concat([copy, rest])));
    });

    void test('readers that leave early, by abort or by return, leave the store as good as new', async () => {
      await using made = await open();
      const { store } = made;
      const bytes = randomBytes(4 * MIB);
      await store.write('v1/object', bytesSource(bytes), context);
      for (let round = 0; round < 100; round++) {
        const stop = new AbortController();
        const content = await store.read('v1/object', { signal: stop.signal });
        assert.ok(content);
        const iterator = content.body[Symbol.asyncIterator]();
        if (round % 2 === 0) await iterator.next();
        if (round % 4 < 2) {
          stop.abort(new Error('client gone'));
          await assert.rejects(iterator.next(), /client gone/);
        } else {
          await iterator.return?.();
          assert.equal((await iterator.next()).done, true);
        }
      }
      assert.ok(bytes.equals(await readAll(store, 'v1/object')));
    });

    void test('an aborted signal ends every call with its reason', async () => {
      await using made = await open();
      const { store } = made;
      const signal = AbortSignal.abort(new Error('no longer wanted'));
      const calls = [
        store.stat('v1/object', { signal }),
        store.read('v1/object', { signal }),
        store.write('v1/object', bytesSource(Buffer.from('x')), { signal }),
        store.remove('v1/object', { signal }),
      ];
      await Promise.all(calls.map((call) => assert.rejects(call, /no longer wanted/)));
    });

    void test('a write that is aborted half way ends at once and leaves what was there', async () => {
      await using made = await open();
      const { store } = made;
      await store.write('v1/object', bytesSource(Buffer.from('before')), context);
      const stop = new AbortController();
      const stuck = new PassThrough();
      stuck.write(randomBytes(1024));
      const source: StoreSource = { size: 4 * MIB, open: async ({ signal }) => addAbortSignal(signal, stuck) };
      const write = store.write('v1/object', source, { signal: stop.signal });
      setTimeout(() => stop.abort(new Error('no longer wanted')), 50);
      await assert.rejects(write, /no longer wanted/);
      assert.equal(stuck.destroyed, true);
      assert.equal((await readAll(store, 'v1/object')).toString(), 'before');
    });

    void test('a source that fails half way is thrown as it is, and leaves nothing', async () => {
      await using made = await open();
      const { store } = made;
      const source = {
        size: 4 * MIB,
        open: () => Promise.resolve(failing(randomBytes(MIB))),
      };
      await assert.rejects(store.write('v1/object', source, context), /upstream was cut/);
      assert.equal(await store.stat('v1/object', context), undefined);
      assert.deepEqual(await keysOf(store, ''), []);
    });

    void test('a source of another length than it said is refused, and leaves what was there', async () => {
      await using made = await open();
      const { store } = made;
      await store.write('v1/object', bytesSource(Buffer.from('before')), context);
      for (const [said, actual] of [
        [10, 9],
        [10, 11],
        [0, 1],
        [2 * MIB, MIB],
        [2 * MIB, 3 * MIB],
      ] as const) {
        const source = { ...bytesSource(randomBytes(actual)), size: said };
        await assert.rejects(
          store.write('v1/object', source, context),
          (error) => isOciError(error, 'SIZE_INVALID'),
          `${said} said, ${actual} given`,
        );
      }
      assert.equal((await readAll(store, 'v1/object')).toString(), 'before');
    });

    void test("a file's content is stored and stays when the file goes, or is moved there", async () => {
      await using made = await open();
      await using temporary = await temporaryDirectory();
      const { store } = made;
      const bytes = randomBytes(2 * MIB + 3);
      const file = join(temporary.path, 'file');
      await writeFile(file, bytes);
      const source = fileSource(file, bytes.length);
      await using handle = await openFile(file);
      const spare = { path: file, handle };
      const short = { ...source, spare, size: bytes.length - 1 };
      await assert.rejects(store.write('v1/object', short, context), (error) => isOciError(error, 'SIZE_INVALID'));
      for (const own of [source, source, { ...source, spare }]) {
        await store.write('v1/object', own, context);
        assert.ok(bytes.equals(await readAll(store, 'v1/object')));
      }
      await temporary[Symbol.asyncDispose]();
      assert.ok(bytes.equals(await readAll(store, 'v1/object')));
    });

    void test('what is listed is in order, within its prefix and after what was seen', async () => {
      await using made = await open();
      const { store } = made;
      for (const key of KEYS.toReversed()) await store.write(key, bytesSource(Buffer.from(key)), context);
      assert.deepEqual(await keysOf(store, ''), KEYS);
      for (const prefix of ['v1/', 'v1/blobs/sha256/ab/', 'v1/blobs/sha256/a', 'v1/repos/hub/a/', 'v1/repos/hub/a', KEYS[4] ?? '', 'v2/'])
        assert.deepEqual(
          await keysOf(store, prefix),
          KEYS.filter((key) => key.startsWith(prefix)),
          prefix,
        );
      for (const after of ['a', 'v1/blobs/sha256/ab', 'v1/blobs/sha256/ab/ab015', 'v1/repos/hub/a', 'v1/repos/hub/a/', 'v9', ...KEYS])
        assert.deepEqual(
          await keysOf(store, '', after),
          KEYS.filter((key) => key > after),
          after,
        );
      for await (const { key, size, modified } of store.list('v1/repos/', context)) {
        assert.equal(size, key.length);
        assert.ok(Math.abs(Date.now() - modified.getTime()) < 60_000);
      }
    });

    void test('every legal key holds its own object', async () => {
      await using made = await open();
      const { store } = made;
      const keys = [...KEYS, `v1/repos/hub/${'a'.repeat(240)}/_tags/${'T'.repeat(128)}`];
      for (const key of keys) await store.write(key, bytesSource(Buffer.from(key)), context);
      for (const key of keys) assert.equal((await readAll(store, key)).toString(), key);
      for (const key of keys) await store.remove(key, context);
      assert.deepEqual(await keysOf(store, ''), []);
    });

    void test('names that are no keys are refused by every method', async () => {
      await using made = await open();
      const { store } = made;
      for (const key of ['', '../escape', 'v1/../../escape', '/etc/passwd', 'v1/\0', '.tmp/x', `v1/${'x'.repeat(300)}`]) {
        const refused = (error: unknown): boolean => isOciError(error, 'NAME_INVALID');
        await assert.rejects(store.stat(key, context), refused);
        await assert.rejects(store.read(key, context), refused);
        await assert.rejects(store.write(key, bytesSource(Buffer.from('x')), context), refused);
        await assert.rejects(store.remove(key, context), refused);
        if (key !== '') await assert.rejects(keysOf(store, key), refused);
      }
    });
  });
}

async function gather(body: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of body) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks);
}

async function readAll(store: Store, key: string, range?: RangeRequest): Promise<Buffer> {
  const content = await store.read(key, range === undefined ? context : { ...context, range });
  assert.ok(content, `${key} is there`);
  return gather(content.body);
}

export async function keysOf(store: Store, prefix: string, after?: string): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of store.list(prefix, after === undefined ? context : { ...context, after })) keys.push(key);
  return keys;
}

async function* repeat(piece: Buffer, count: number): AsyncIterable<Buffer> {
  for (let sent = 0; sent < count; sent++) yield piece;
}

async function* failing(piece: Buffer): AsyncIterable<Buffer> {
  yield piece;
  throw new Error('upstream was cut');
}
