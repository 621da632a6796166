import { makeImage } from '../../test/support/image.ts';
import { requestRate } from '../load.ts';
import type { Row } from '../row.ts';
import { startOther, startOwn, startUpstream } from '../servers.ts';

const manifest: Row = {
  name: 'warm-manifest',
  title: { en: 'Warm manifest, 16 connections', zh: '已缓存的 manifest，16 个连接' },
  unit: 'requests/s',
  targets: [
    { of: 'by digest', against: 'distribution', atLeast: 4 },
    { of: 'by tag', against: 'by digest', atLeast: 0.95 },
  ],
  async open(stack) {
    const image = makeImage({ architectures: ['amd64'], layers: Array.from({ length: 12 }, () => 1024) });
    const upstream = await startUpstream(stack, { images: { latest: image } });
    const [own, other] = [await startOwn(stack, { upstream }), await startOther(stack, { upstream })];
    const { digest } = image.root;
    const asking = (url: string) => (turn: number) => requestRate(url, { connections: 16, seconds: turn === 0 ? 3 : 2 });
    return {
      'by digest': asking(own.manifest(digest)),
      'by tag': asking(own.manifest('latest')),
      distribution: asking(other.manifest(digest)),
    };
  },
};

export const manifestRows = [manifest];
