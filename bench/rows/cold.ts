import { openCold, type Cold } from '../cold.ts';
import type { Row, Target } from '../row.ts';

const total = (title: Row['title'], name: string, cold: Omit<Cold, 'measure'>, targets: Target[]): Row => ({
  name,
  title,
  unit: 'seconds',
  targets,
  open: openCold(cold),
});

const together = (title: Row['title'], name: string, cold: Pick<Cold, 'line'>): Row => ({
  name,
  title,
  unit: 'bytes/s',
  targets: [{ of: 'registry', against: 'distribution', atLeast: 3 }],
  open: openCold({ clients: 32, without: ['upstream'], measure: ({ bytes, seconds }) => bytes / seconds, ...cold }),
});

const SLOW = 8e6;
const GIGABIT = 125e6;

/** The target for a cold blob, as a share of Distribution's time and of its CPU time. */
const ofDistribution = (seconds: number, cpu: number): Target[] => [
  { of: 'registry', against: 'distribution', atMost: seconds },
  { of: 'registry', against: 'distribution', measure: 'cpu', atMost: cpu },
];

export const coldRows: readonly Row[] = [
  total({ en: 'Cold 64 MiB blob, upstream with unlimited bandwidth', zh: '未缓存的 64 MiB blob，上游不限速' }, 'cold-blob', {}, [
    { of: 'registry', against: 'upstream', atMost: 1.1 },
  ]),
  {
    ...total({ en: 'Cold 64 MiB blob, time to the first byte', zh: '未缓存的 64 MiB blob，到首字节的时间' }, 'cold-first-byte', {}, [
      { of: 'registry', against: 'upstream', as: 'difference', atMost: 0.01 },
    ]),
    open: openCold({ measure: ({ clients }) => clients[0]?.firstByte ?? Number.NaN }),
  },
  total(
    { en: 'Cold 64 MiB blob, upstream over 1 Gbit/s', zh: '未缓存的 64 MiB blob，上游带宽 1 Gbit/s' },
    'cold-gigabit',
    { line: { rate: GIGABIT, each: false } },
    [{ of: 'registry', against: 'upstream', atMost: 1.1 }],
  ),
  {
    ...total(
      { en: 'Cold 64 MiB blob, upstream limited to 8 MB/s per connection', zh: '未缓存的 64 MiB blob，上游每个连接 8 MB/s' },
      'cold-slow-connections',
      { line: { rate: SLOW, each: true }, without: ['upstream'] },
      [{ of: 'registry', against: 'distribution', atMost: 0.35 }],
    ),
    turns: 3,
  },
  {
    ...total(
      { en: 'Cold 64 MiB blob, upstream limited to 8 MB/s in total', zh: '未缓存的 64 MiB blob，上游总共 8 MB/s' },
      'cold-slow-line',
      { line: { rate: SLOW, each: false } },
      [{ of: 'registry', against: 'upstream', atMost: 1.05 }],
    ),
    turns: 3,
  },
  total(
    { en: 'Cold 64 MiB blob over HTTPS, upstream with unlimited bandwidth', zh: '经 HTTPS 的未缓存 64 MiB blob，上游不限速' },
    'cold-https',
    { secure: true },
    ofDistribution(0.75, 0.95),
  ),
  total(
    {
      en: 'Cold 64 MiB blob over HTTPS, with 8 other processes using the CPU',
      zh: '经 HTTPS 的未缓存 64 MiB blob，同时有 8 个占满 CPU 的进程',
    },
    'cold-https-busy',
    { secure: true, busy: 8, without: ['upstream'] },
    ofDistribution(0.75, 0.95),
  ),
  total(
    { en: 'Cold 64 MiB blob over HTTPS, upstream over 1 Gbit/s', zh: '经 HTTPS 的未缓存 64 MiB blob，上游带宽 1 Gbit/s' },
    'cold-https-gigabit',
    { secure: true, line: { rate: GIGABIT, each: false } },
    [{ of: 'registry', against: 'upstream', atMost: 1.05 }],
  ),
  total(
    { en: 'Cold 64 MiB blob over HTTPS, through an HTTP proxy (CONNECT)', zh: '经 HTTPS 和 HTTP 代理（CONNECT）的未缓存 64 MiB blob' },
    'cold-connect',
    { secure: true, proxy: 'http', without: ['upstream'] },
    ofDistribution(0.75, 0.95),
  ),
  total(
    { en: 'Cold 64 MiB blob over HTTPS, through a SOCKS5 proxy', zh: '经 HTTPS 和 SOCKS5 代理的未缓存 64 MiB blob' },
    'cold-socks5',
    { secure: true, proxy: 'socks5', without: ['upstream'] },
    ofDistribution(0.75, 0.95),
  ),
  together(
    {
      en: '32 clients on one cold 64 MiB blob, upstream over 1 Gbit/s',
      zh: '32 个客户端同时拉取一个未缓存的 64 MiB blob，上游带宽 1 Gbit/s',
    },
    'cold-32-clients',
    {
      line: { rate: GIGABIT, each: false },
    },
  ),
  together(
    {
      en: '32 clients on one cold 64 MiB blob, upstream with unlimited bandwidth',
      zh: '32 个客户端同时拉取一个未缓存的 64 MiB blob，上游不限速',
    },
    'cold-32-clients-unbounded',
    {},
  ),
];
