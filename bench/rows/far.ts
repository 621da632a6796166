import { makeImage } from '../../test/support/image.ts';
import { freePort } from '../../test/support/temporary.ts';
import { load, startLongLine } from '../load.ts';
import type { Row, Turn } from '../row.ts';
import { startOwn, startUpstream, type Contestant } from '../servers.ts';

const ROUND_TRIP_MS = 100;
const TURNS = 5;

/** Upstream and its token service are two distant hosts with HTTPS. Each turn starts without
 *  connections and with a new image. `measure` returns seconds. */
function open(measure: (far: Contestant, image: { tag: string; layer: string }) => Promise<number>): Row['open'] {
  return async (stack) => {
    const images = Array.from({ length: TURNS + 1 }, (_, turn) =>
      makeImage({ architectures: ['amd64'], layers: [2 ** 20], seed: `far ${turn}` }),
    );
    const tags = images.map((_, turn) => `v${turn}`);
    const host = `127.0.0.1:${await freePort()}`;
    const lines = [await startLongLine(stack, host, ROUND_TRIP_MS), await startLongLine(stack, host, ROUND_TRIP_MS)] as const;
    const near = await startUpstream(stack, {
      images: Object.fromEntries(images.map((image, turn) => [tags[turn], image])),
      secure: true,
      host,
      tokensFrom: lines[1].host,
    });
    const upstream = { ...near, url: near.url.replace(host, lines[0].host) };
    const asking =
      (contestant: Contestant): Turn =>
      async (turn) => {
        for (const line of lines) await line.cut();
        const layer = images[turn]?.platforms[0]?.layers[0]?.digest ?? '';
        return (1000 * (await measure(contestant, { tag: `v${turn}`, layer }))) / ROUND_TRIP_MS;
      };
    return { registry: asking(await startOwn(stack, { upstream })) }; // Distribution cannot get a token from this service
  };
}

async function firstByte(url: string): Promise<number> {
  const { clients } = await load({ clients: [{ urls: [url] }] });
  return clients[0]?.firstByte ?? Number.NaN;
}

const manifest: Row = {
  name: 'far-manifest',
  title: {
    en: 'Cold manifest by tag over HTTPS, upstream with 100 ms round-trip time, token already cached',
    zh: '经 HTTPS 按 tag 取未缓存的 manifest，到上游的往返时间 100 ms，令牌仍有效',
  },
  unit: 'round trips',
  turns: TURNS,
  // TCP, TLS, manifest: the token of the warm-up turn is still valid.
  targets: [{ of: 'registry', atMost: 4 }],
  open: open(({ manifest }, { tag }) => firstByte(manifest(tag))),
};

const blob: Row = {
  name: 'far-blob',
  title: {
    en: 'First byte of a cold blob over HTTPS after its manifest, upstream with 100 ms round-trip time',
    zh: '经 HTTPS 在 manifest 之后取未缓存 blob 的首字节，到上游的往返时间 100 ms',
  },
  unit: 'round trips',
  turns: TURNS,
  targets: [{ of: 'registry', atMost: 1.5 }],
  open: open(async ({ manifest, blob }, { tag, layer }) => {
    await firstByte(manifest(tag));
    return firstByte(blob(layer));
  }),
};

export const farRows = [manifest, blob];
