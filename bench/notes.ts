import type { Text } from './row.ts';

/** What docs/benchmarks.md says beside the figures. */
export const notes: { method: Text; rows: Record<string, Text>; profiles: Text } = {
  method: {
    en: `Every contestant does the same work in turns (A B A B …), each in a process of its own, after a turn that warms it up and checks every
byte. A ratio compares two contestants within one turn; the tables have the median of these ratios, their least and most, and the
best turn of the one beside the best of the other. Absolute figures say more of the machine than of the programs: programs, clients and
upstream share its cores.

- *registry*: this one, as it is started, with its default configuration; *distribution*: Distribution v3 as a pull-through cache, access log off,
  redirect off; *nginx* and *upstream*: nginx with sendfile and one worker over files in a registry's layout; *s3*: versitygw.
- Clients: wrk for manifests; \`ctr\` for whole images; for blobs bench/load, in Go, since wrk's reads of 8 KiB cost it more time than nginx needs to
  send them. A line of bounded speed is a process of its own, with 20 ms of burst.`,
    zh: `每个参与者轮流（A B A B …）完成同样的工作，各在自己的进程中；先有一轮热身，并校验每个字节。比值只在同一轮内比较两个参与者；表中给出这些比值的中位数、
最小值和最大值，以及双方最佳一轮之比。绝对数值更多地反映机器而非程序：程序、客户端和上游共享同样的核心。

- *registry*：本仓库，按默认配置启动；*distribution*：Distribution v3 拉取缓存，关闭访问日志和重定向；*nginx* 与 *upstream*：启用 sendfile、单 worker 的
  nginx，提供按仓库布局存放的文件；*s3*：versitygw。
- 客户端：manifest 用 wrk；整个镜像用 \`ctr\`；blob 用 Go 写的 bench/load，因为 wrk 每次只读 8 KiB，花费的时间比 nginx 发送还多。限速线路是独立的进程，
  突发量为 20 ms。`,
  },
  rows: {},
  profiles: { en: '', zh: '' },
};
