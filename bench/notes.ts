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
  rows: {
    'warm-blob-s3': {
      en: `A hit in S3 is followed like a fill: hashed, written to the local tier, and read by its clients from memory or from there, so that slow clients hold
no connection to S3 and wrong bytes never leave. That costs about 2.3 ns of CPU time a byte over all threads, of which hashing is 0.55;
Distribution copies from socket to socket and verifies nothing. On two cores, which S3 and the clients share, this bounds the row. The second read
comes from the local tier.`,
      zh: `S3 命中与首次拉取走同样的路径：计算哈希、写入本地层，客户端从内存或本地层读取；因此慢客户端不占用 S3 连接，错误的字节也不会发出。各线程合计每字节约 2.3 ns
CPU 时间，其中哈希 0.55 ns；Distribution 只在套接字之间复制，不做校验。两个核心还要分给 S3 和客户端，这就是本行的上限。第二次读取来自本地层。`,
    },
    'cold-blob': {
      en: `Not reached, and not to be reached on two cores: over loopback nginx gives 64 MiB in 12 to 20 ms, hashing them takes 35 ms. A cold blob costs about
1.8 ns of CPU time a byte, 110 to 140 ms for this one: receiving, hashing, writing to the spool, sending. Over a line of 1 Gbit/s, the next but one
row, all of it hides behind the line.`,
      zh: `未达到，在两个核心上也无法达到：经回环网络 nginx 用 12 到 20 ms 给出 64 MiB，而计算其哈希需 35 ms。未缓存的 blob 每字节约 1.8 ns CPU 时间，本 blob
共 110 到 140 ms：接收、哈希、写入暂存文件、发送。经 1 Gbit/s 线路（再下一行）时，这些全部被线路时间掩盖。`,
    },
    'cold-32-clients-unbounded': {
      en: `Distribution fetches the blob once for every client, which costs nothing where upstream is nginx on the same machine. Where upstream has a line, the
row above, it does.`,
      zh: `Distribution 为每个客户端各拉取一次；当上游是同一台机器上的 nginx 时，这没有代价。当上游有带宽限制时（上一行）则有。`,
    },
    agent: {
      en: `One more process that receives and sends every byte, on the same two cores: alone the registry and the client use 0.9 ns a byte of both cores, the agent's
receiving and sending adds about as much. Node cannot splice sockets.`,
      zh: `多一个进程接收并发送每个字节，且共用同样的两个核心：仅仓库和客户端每字节共用 0.9 ns，agent 的收发大约再加一倍。Node 不支持套接字 splice。`,
    },
  },
  profiles: {
    en: `## What the profiles show

\`NODE_OPTIONS=--cpu-prof\`, a cold blob and hits in S3. Before: of the main thread's busy time 27 % was handing writes to the thread pool and 13 % handing reads
(60 to 130 µs each, by pieces of 64 KiB), 17 % garbage collection of received chunks, 15 % SHA-256. Now chunks gather in windows of up to 512 KiB while the disk is busy or for
1 ms, readers at the front are given the window itself instead of reading it back, hashing runs while another thread writes, and chunks are freed
by hand: 0.75 of the CPU time of a cold blob, 0.9 of that of a hit in S3.

Start: with the compile cache on before anything else is imported, 0.8 of the CPU time of one that turns it on after the static imports, and half of one without.`,
    zh: `## 性能剖析

\`NODE_OPTIONS=--cpu-prof\`，未缓存的 blob 与 S3 命中。之前：主线程忙碌时间的 27 % 用于把写操作交给线程池，13 % 用于交出读操作（每次 60 到 130 µs，每块 64 KiB），
17 % 用于回收收到的数据块，15 % 用于 SHA-256。现在，数据块在磁盘忙时或 1 ms 内聚集成最多 512 KiB 的窗口，跟在最前面的读者直接得到窗口而不再读回，哈希与另一线程的写入同时进行，
数据块手动释放：未缓存 blob 的 CPU 时间为原来的 0.75，S3 命中为 0.9。

启动：在导入任何模块之前启用编译缓存，CPU 时间是静态导入之后才启用的 0.8，是不启用的一半。`,
  },
};
