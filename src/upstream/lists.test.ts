import assert from 'node:assert/strict';
import { test } from 'node:test';
import { context, MANIFEST, openUpstream, REPOSITORY, startStub, type Call } from '../../test/support/stub-registry.ts';
import { sha256 } from '../../test/support/image.ts';
import { OCI_INDEX } from '../oci/descriptor.ts';
import { parseDigest } from '../oci/digest.ts';
import { isOciError } from '../oci/error.ts';
import { parseTag } from '../oci/reference.ts';

const all = Array.from({ length: 25 }, (_, index) => `v${String(index).padStart(2, '0')}`);

/** Three pages, linked in the form that `link` makes of the last tag of each. */
function pages(link: (last: string) => string) {
  return ({ url, send }: Call) => {
    const from = all.indexOf(url.searchParams.get('last') ?? '') + 1;
    const tags = all.slice(from, from + 10);
    send(200, { tags }, from + 10 < all.length ? { link: link(tags.at(-1) ?? '') } : {});
  };
}

async function tagsOf(url: string, last?: string): Promise<string[]> {
  const { registry } = openUpstream(url, { limits: { attempts: 1 } });
  const pages = await Array.fromAsync(registry.tags(REPOSITORY, { ...context(), ...(last === undefined ? {} : { last: parseTag(last) }) }));
  return pages.flat();
}

test('a tag list is whole, whatever its links look like', async () => {
  const forms: ((last: string) => string)[] = [
    (last) => `</v2/acme/web/tags/list?last=${last}>; rel="next"`,
    (last) => `<list?last=${last}>; rel=next`,
    (last) => `<?last=${last}>; title="more, of them"; rel="next"`,
    (last) => `<https://10.0.0.1:5000/v2/acme/web/tags/list?last=${last}>; rel="next"`,
    (last) => `</first>; rel="first", </api/pages?last=${last}>; rel="next"`,
  ];
  for (const form of forms) {
    await using stub = await startStub(pages(form));
    assert.deepEqual(await tagsOf(stub.url), all, form('x'));
  }
  // Behind a proxy that strips a base path, and after a redirect to another registry.
  await using stripped = await startStub((call) =>
    call.path.startsWith('/base/v2/') ? pages((last) => `</v2/acme/web/tags/list?last=${last}>; rel="next"`)(call) : call.refuse(404),
  );
  assert.deepEqual(await tagsOf(`${stripped.url}/base`), all);
  await using second = await startStub(
    pages((last) => `</v2/acme/web/tags/list?last=${last}>; rel="next"`),
    'localhost',
  );
  await using first = await startStub(({ path, send }) => send(307, '', { location: second.url + path }));
  assert.deepEqual(await tagsOf(first.url), all);
  assert.equal(first.calls.length, 1, 'the next pages come from where the first one came from');
});

test('each tag is listed once if `last` is ignored, and none is lost if the registry sorts differently', async () => {
  await using ignoring = await startStub(({ send }) => send(200, { tags: all })); // Distribution 2, GCR
  assert.deepEqual(await tagsOf(ignoring.url, 'v09'), all.slice(10));
  assert.deepEqual(await tagsOf(ignoring.url, 'v08x'), all.slice(9), 'also when it has been deleted meanwhile');
  await using byAge = await startStub(({ url, send }) =>
    send(200, { tags: url.searchParams.get('last') === 'm' ? ['z', 'a', 'k'] : ['m', 'z', 'a', 'k'] }),
  );
  assert.deepEqual(await tagsOf(byAge.url, 'm'), ['z', 'a', 'k']);
});

test('a list that does not end, or that breaks off, is an error', async () => {
  await using turning = await startStub(({ send }) => send(200, { tags: ['a'] }, { link: '<?last=a>; rel="next"' }));
  await assert.rejects(tagsOf(turning.url), (error) => isOciError(error, 'UNAVAILABLE'));
  await using breaking = await startStub(({ url, send, refuse }) =>
    url.searchParams.has('last') ? refuse(500) : send(200, { tags: ['a'] }, { link: '<?last=a>; rel="next"' }),
  );
  await assert.rejects(tagsOf(breaking.url), (error) => isOciError(error, 'UNAVAILABLE'));
  await using badLink = await startStub(({ send }) => send(200, { tags: ['a'] }, { link: '<http://[>; rel="next"' }));
  await assert.rejects(tagsOf(badLink.url), (error) => isOciError(error, 'UNAVAILABLE'));
});

const subject = parseDigest(sha256(Buffer.from('subject')));
const entry = (index: number) => ({
  mediaType: MANIFEST,
  digest: sha256(Buffer.from(`r${index}`)),
  size: 10,
  artifactType: index % 2 === 0 ? 'a' : 'b',
});
const index = (...entries: object[]) => Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: entries }));

async function referrersOf(url: string, digest = subject, artifactType?: string) {
  const { registry } = openUpstream(url, { limits: { attempts: 1 } });
  const answer = await registry.referrers(REPOSITORY, digest, { ...context(), ...(artifactType === undefined ? {} : { artifactType }) });
  return { ...answer, entries: (JSON.parse(Buffer.from(answer.index).toString()) as { manifests: object[] }).manifests };
}

test('referrers are read from all pages, or the request fails', async () => {
  const serve = (broken: boolean) => (call: Call) => {
    const page = Number(call.url.searchParams.get('page') ?? 0);
    if (broken && page === 2) return call.refuse(404);
    const link = `</v2/acme/web/referrers/${subject}?page=${page + 1}>; rel="next"`;
    call.send(200, index(entry(2 * page), entry(2 * page + 1)), { 'content-type': OCI_INDEX, ...(page < 2 ? { link } : {}) });
  };
  await using whole = await startStub(serve(false));
  assert.deepEqual((await referrersOf(whole.url)).entries, [0, 1, 2, 3, 4, 5].map(entry));
  const filtered = await referrersOf(whole.url, subject, 'b');
  assert.deepEqual([filtered.entries, filtered.filtersApplied], [[1, 3, 5].map(entry), true]);
  await using broken = await startStub(serve(true));
  await assert.rejects(referrersOf(broken.url));
});

test('without the API, referrers come from the tag of the digest, cut as the specification says; an outage is not an empty list', async () => {
  const long = parseDigest(`sha512:${'ab'.repeat(64)}`);
  await using stub = await startStub(({ kind, reference, send, refuse }) =>
    kind === 'manifests' && reference === `sha512-${'ab'.repeat(32)}`
      ? send(200, index(entry(1)), { 'content-type': OCI_INDEX })
      : refuse(404),
  );
  assert.deepEqual((await referrersOf(stub.url, long)).entries, [entry(1)]);
  assert.deepEqual((await referrersOf(stub.url)).entries, [], 'no such tag');
  await using down = await startStub(({ send }) => send(404, 'default backend - 404', { 'content-type': 'text/plain' }));
  await assert.rejects(referrersOf(down.url), (error) => isOciError(error, 'UNAVAILABLE'));
});
