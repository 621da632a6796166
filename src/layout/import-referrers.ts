import { readAll } from '../io/body.ts';
import { MAX_MANIFEST_SIZE, OCI_INDEX, parseManifest } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import type { Repository } from '../oci/reference.ts';
import { blobKey, referrerListKey } from '../store/keys.ts';
import type { Store } from '../store/store.ts';
import type { LayoutImage } from './image-layout.ts';
import { writeRecord, writeTree, type Tree } from './image-tree.ts';

/** Takes the referrers of the file's images out of `trees`: entries without a name that have a
 *  subject in the file. A referrer comes after what it refers to. */
export function takeReferrers(trees: Map<LayoutImage, Tree>): Tree[] {
  const there = new Set<Digest>();
  const nameless = new Map<LayoutImage, { tree: Tree; subject: Digest }>();
  for (const [image, tree] of trees) {
    const subject = rootOf(tree).subject;
    if (image.name === undefined && subject !== undefined) nameless.set(image, { tree, subject });
    else for (const { descriptor } of tree.manifests) there.add(descriptor.digest);
  }
  const taken: Tree[] = [];
  for (let found = true; found;) {
    found = false;
    for (const [image, { tree, subject }] of nameless) {
      if (!there.has(subject)) continue;
      for (const { descriptor } of tree.manifests) there.add(descriptor.digest);
      taken.push(tree);
      nameless.delete(image);
      trees.delete(image);
      found = true;
    }
  }
  return taken;
}

/** Writes a referrer into the repositories of its subject, and lists it there. `places`: the
 *  repositories of what has been imported.
 *  @returns false: its subject has not been imported, or some of its blobs are missing */
export async function importReferrer(
  tree: Tree,
  places: Map<Digest, Repository[]>,
  { store, signal }: { store: Store; signal: AbortSignal },
): Promise<boolean> {
  const { subject, descriptor } = rootOf(tree);
  const repositories = subject === undefined ? [] : (places.get(subject) ?? []);
  if (subject === undefined || repositories.length === 0) return false;
  for (const digest of tree.blobs.keys()) if ((await store.stat(blobKey(digest), { signal })) === undefined) return false;
  for (const repository of repositories) {
    await writeTree(tree, { repository, store, signal });
    await list(store, { key: referrerListKey(repository, subject), descriptors: [descriptor], signal });
    // Clients ask for the referrers of a referrer next.
    await list(store, { key: referrerListKey(repository, descriptor.digest), descriptors: [], signal });
  }
  places.set(descriptor.digest, repositories);
  return true;
}

/** Adds referrers to the list of their subject. */
async function list(
  store: Store,
  { key, descriptors, signal }: { key: string; descriptors: readonly { digest: Digest }[]; signal: AbortSignal },
): Promise<void> {
  const found = await store.read(key, { signal });
  const bytes = found === undefined ? undefined : await readAll(found.body, 2 * MAX_MANIFEST_SIZE);
  const known = (JSON.parse(String(bytes ?? '{}')) as { index?: { manifests?: { digest: Digest }[] } }).index?.manifests ?? [];
  const added = new Set(descriptors.map(({ digest }) => digest));
  const manifests = [...known.filter(({ digest }) => !added.has(digest)), ...descriptors];
  const index = { schemaVersion: 2, mediaType: OCI_INDEX, manifests };
  await writeRecord(store, key, { record: { checkedAt: new Date().toISOString(), imported: true, index }, signal });
}

/** The subject of a tree's topmost manifest, and its descriptor as a list of referrers has it
 *  (distribution specification, "Listing Referrers"). */
function rootOf({ manifests }: Tree) {
  const root = manifests.at(-1);
  if (root === undefined) throw new Error('an image has a manifest');
  const { subject } = parseManifest(root.bytes, root.descriptor.mediaType);
  const { artifactType, config, annotations } = JSON.parse(Buffer.from(root.bytes).toString()) as {
    artifactType?: string;
    config?: { mediaType?: string };
    annotations?: Record<string, string>;
  };
  const type = artifactType ?? config?.mediaType;
  return {
    subject,
    descriptor: {
      ...root.descriptor,
      ...(type === undefined ? {} : { artifactType: type }),
      ...(annotations === undefined ? {} : { annotations }),
    },
  };
}
