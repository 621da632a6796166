// Run by `helm test`: requests every URL, and for pull:URL pulls the whole image through the registry.
import { createHash } from 'node:crypto';

const ACCEPT = ['oci.image.index.v1', 'oci.image.manifest.v1', 'docker.distribution.manifest.list.v2', 'docker.distribution.manifest.v2']
  .map((type) => `application/vnd.${type}+json`)
  .join(', ');

async function get(url) {
  const response = await fetch(url, { headers: { accept: `${ACCEPT}, */*` }, signal: AbortSignal.timeout(60_000) });
  if (!response.ok) throw new Error(`${url} answered ${response.status}: ${await response.text()}`);
  return new Uint8Array(await response.arrayBuffer());
}

async function pull(image) {
  const [, base, repository, reference] = /^(https?:\/\/[^/]+)\/(.+?)(?:@|:(?=[^/]+$))(.+)$/.exec(image);
  const blob = (digest) => `${base}/v2/${repository}/blobs/${digest}`;
  const manifest = async (name) => JSON.parse(new TextDecoder().decode(await get(`${base}/v2/${repository}/manifests/${name}`)));
  const first = await manifest(reference);
  const child = first.manifests ? await manifest(first.manifests[0].digest) : first;
  for (const { digest } of [child.config, ...child.layers]) {
    const found = createHash(digest.split(':')[0])
      .update(await get(blob(digest)))
      .digest('hex');
    if (!digest.endsWith(found)) throw new Error(`${blob(digest)} came with the digest ${found}`);
  }
  console.log(`pulled ${image}: ${child.layers.length} layers`);
}

for (const target of process.argv.slice(1)) {
  if (target.startsWith('pull:')) await pull(target.slice(5));
  else console.log(`${target}: ${(await get(target)).length} bytes`);
}
