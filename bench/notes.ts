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
    'warm-blob': {
      en: `Sent by sendfile(2), as nginx does ([how](decisions/sendfile.md)): before, by two copies a byte, it was 0.40 to 0.47 of nginx where that gives 5 to 7 GB/s, and as fast as
Distribution. Beside the system call itself the event loop has its own work, some 15 %, two thirds of it the question whether a MiB is in memory, which nginx does not ask, since it may wait for
the disk: 0.73 to 0.88 of nginx, from run to run. Remembering the answer for a second was tried: 0.78 to 0.96. Both cores are full, half of them the client's.`,
      zh: `与 nginx 一样用 sendfile(2) 发送（[实现](decisions/sendfile.md)）：之前每个字节复制两次，在 nginx 达到 5 到 7 GB/s 的机器上只有它的 0.40 到 0.47，与 Distribution 相当。
系统调用之外事件循环自身的工作约占 15 %，其中三分之二是询问这 1 MiB 是否在内存中；nginx 不问，因为它可以等待磁盘：各次运行为 nginx 的 0.73 到 0.88。试过把答案记住一秒：0.78 到 0.96。两个核心都已占满，一半属于客户端。`,
    },
    'warm-blob-s3': {
      en: `A hit in S3 is followed like a fill: hashed, written to the local tier, and read by its clients from memory or from there, so that slow clients hold
no connection to S3 and wrong bytes never leave. That costs about 1.75 ns of CPU time a byte over all threads, 0.8 of them the main thread's: hashing 0.5, receiving, writing and
sending about as much each. Distribution copies from socket to socket, 0.4 ns, and verifies nothing. Both cores, which S3 and the clients share, are busy then: that bounds the
row at 600 to 1000 MB/s, by how fast the machine hashes (1.25 to 2 GB/s a core); S3 directly is versitygw with sendfile. The second read comes from the local tier.

It was 4.3 to 4.8 ns before. Four connections for a blob instead of one cost half of that: more than a busy process can take, and what came out of order was read back to be hashed.
Now none is taken for speed while the event loop is busy for more than three quarters of its time (a slow line still gets them). Reading the socket without
Node's parser (plain HTTP only) and larger buffers for up to four downloads at once brought the rest; a thread that writes and hashes
([why](decisions/spool-threads.md)) another quarter of the speed, and asking S3 for the blob at once, instead of first whether it is there, one of two round trips. Tried, and no
help: pieces of 128 KiB, windows of 512 KiB. Copying from the socket's buffers into the windows is 1 % of the time. Left out: passing on what S3 gives without verifying it, or
without keeping it, which is what the other contestants do.

By redirect: S3 is asked for each request, since nobody may be sent to one that is away; once for all who ask at the same time, for one blob or for any that S3 has shown within
5 s. The question was signed before, as the URL was: by the SDK, which signs each time, a HEAD takes 0.5 ms of the main thread (2 ms after a pause, as here), by node:http alone
less than 0.1 (0.7). The four clients are sent on within 2 ms, where it was 9: of blobs of 64 MiB that are gone in 60 ms, a tenth of the row. A bare
node:http server that redirects without asking comes to the same ratio, 0.94 to 0.97 over 40 turns: what is left are the second connection and the cores that all share.`,
      zh: `S3 命中与首次拉取走同样的路径：计算哈希、写入本地层，客户端从内存或本地层读取；因此慢客户端不占用 S3 连接，错误的字节也不会发出。各线程合计每字节约 1.75 ns
CPU 时间，其中主线程 0.8 ns：哈希 0.5 ns，接收、写入、发送各约相当。Distribution 只在套接字之间复制，0.4 ns，不做校验。此时两个核心（还要分给 S3 和客户端）都已占满，本行因此为 600 到 1000 MB/s，取决于机器的哈希速度（每核心 1.25 到 2 GB/s）；
直接访问的 S3 是使用 sendfile 的 versitygw。第二次读取来自本地层。

之前为 4.3 到 4.8 ns。其中一半来自每个 blob 用四个而非一个连接：忙碌的进程吃不下更多，乱序到达的部分还要读回来计算哈希。现在，事件循环的忙碌时间超过四分之三时不再为提速增加连接
（慢线路照旧）。其余改进来自绕过 Node 的解析器直接读套接字（仅限明文 HTTP），以及让四个以内的并发下载都用大缓冲区；由一个线程负责写入和哈希（[原因](decisions/spool-threads.md)）使速度再提高四分之一；
直接向 S3 要 blob 而不先问它有没有，省去两次往返中的一次。试过而无效：每次读 128 KiB、窗口 512 KiB。从套接字缓冲区复制到窗口只占 1 % 的时间。没有做的：不校验、或不保留就转发 S3 给出的内容，即其他参与者的做法。

重定向：每个请求都会先询问 S3，因为不能把客户端送往已不可用的 S3；同时到达的请求，无论是同一个 blob 还是 S3 在 5 s 内给出过的任意 blob，只问一次。询问和 URL 一样预先签名：
SDK 每次重新签名，一个 HEAD 占主线程 0.5 ms（如本行这样空闲之后为 2 ms），只用 node:http 则不到 0.1 ms（0.7 ms）。四个客户端在 2 ms 内得到重定向，之前为 9 ms；64 MiB 的 blob 在 60 ms 内传完，
这便是本行的十分之一。不询问、直接重定向的裸 node:http 服务器在 40 轮中得到同样的比值 0.94 到 0.97：剩下的是第二个连接和共享的核心。`,
    },
    'warm-blob-s3-shared': {
      en: `The blob is read from S3, hashed and written once, and sent four times: 0.6 ns of CPU time a byte that is sent. Distribution reads it from S3 four times, 0.4 ns. Both cores are
full in either case. By sendfile, sending is cheap: it was 0.7 of Distribution before, on the same machine, and is 0.8 now. The rest is the one fill, a quarter of what the row above says: hashing and writing
64 MiB, one after the other, take longer than S3 does to give them four times.`,
      zh: `blob 只从 S3 读取、哈希、写入一次，发送四次：每个发出的字节 0.6 ns CPU 时间。Distribution 从 S3 读取四次，0.4 ns。两种情况下两个核心都已占满。有了 sendfile，
发送很便宜：同一台机器上之前为 Distribution 的 0.7，现在为 0.8。其余是那一次获取，即上一行所述的四分之一：依次哈希和写入 64 MiB，比 S3 给出四次还久。`,
    },
    'warm-manifest': {
      en: `A manifest takes 17 to 18 µs of CPU time, where a bare node:http server that answers the same head and body takes 10 to 11, most of it in the
kernel. What is left of the rest is spread: parsing the target, a dozen promises, counting.`,
      zh: `每个 manifest 需 17 到 18 µs CPU 时间；返回同样头部和内容的裸 node:http 服务器需 10 到 11 µs，大部分在内核中。其余开销分散在各处：解析目标、十几个 promise、
计数。`,
    },
    'cold-blob': {
      en: `Not reached, and not to be reached on two cores: over loopback nginx gives 64 MiB in 8 to 20 ms, hashing them takes 35 ms. A cold blob costs about
1.8 ns of CPU time a byte over all threads, half of it the event loop's: receiving, hashing, writing to the spool, sending; it takes about half as long as Distribution does.
Before a thread wrote and hashed it took 1.3 times as long. Over a line of 1 Gbit/s, the next but one row, all of it hides behind the line.`,
      zh: `未达到，在两个核心上也无法达到：经回环网络 nginx 用 8 到 20 ms 给出 64 MiB，而计算其哈希需 35 ms。未缓存的 blob 各线程合计每字节约 1.8 ns CPU 时间，事件循环占一半：
接收、哈希、写入暂存文件、发送；用时约为 Distribution 的一半。在由单独的线程写入和哈希之前，用时为现在的 1.3 倍。经 1 Gbit/s 线路（再下一行）时，这些全部被线路时间掩盖。`,
    },
    'cold-32-clients-unbounded': {
      en: `Distribution fetches the blob once for every client, which costs nothing where upstream is nginx on the same machine. Where upstream has a line, the
row above, it does. What is in the spool is sent to all 32 clients by sendfile, without a copy (2.9 GB/s by copies, 3.5 to 4.2 GB/s now): what is left are
2 GiB that the clients copy out of 32 sockets, and a turn of the event loop for every reader and piece.`,
      zh: `Distribution 为每个客户端各拉取一次；当上游是同一台机器上的 nginx 时，这没有代价。当上游有带宽限制时（上一行）则有。暂存文件中的内容用 sendfile 发给全部 32 个客户端，不再复制
（复制时 2.9 GB/s，现在 3.5 到 4.2 GB/s）：剩下的是客户端从 32 个套接字复制出 2 GiB，以及每个读者、每一块各占事件循环的一轮。`,
    },
    'pull-cold': {
      en: `Not reached, by a few hundredths, less than the spread of a run. Both cores are full: a pull costs this registry 280 to 350 ms of CPU time over all threads, Distribution 270 to 350,
containerd about as much, which hashes, writes and unpacks on the same cores. Asked for one after the other, without containerd, each layer comes sooner than from Distribution;
under load a single event loop gets its turn later than a program of many threads. It was 1.13: what comes over plain HTTP is read straight from the socket, a thread writes and hashes, what was
fetched is moved into the store instead of linked, and syncs of a directory are shared, 140 instead of 250 ms of the event loop. Tried, without a difference beyond the noise: no fsync, records
written after the pull, no helper connections, a download that waits for its reader.`,
      zh: `差百分之几，小于一次运行的离散。两个核心都已占满：一次拉取使本仓库各线程共用 280 到 350 ms CPU 时间，Distribution 为 270 到 350 ms，containerd 也差不多，它在同样的核心上计算哈希、
写入并解包。不经 containerd 逐层请求时，每一层都比 Distribution 更快；在负载之下，单个事件循环比多线程程序更晚轮到。之前为 1.13：明文 HTTP 直接从套接字读取，由线程写入和哈希，
取得的文件移入存储而不再建链接，目录的 fsync 合并进行，事件循环从 250 ms 降到 140 ms。以下尝试的差别均未超出噪声：不做 fsync、拉取之后才写记录、不用辅助连接、让下载等待其读者。`,
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
(60 to 130 µs each, by pieces of 64 KiB), 17 % garbage collection of received chunks, 15 % SHA-256. Now chunks gather in windows of up to 256 KiB while the disk is busy or for
1 ms, readers at the front are given the window itself instead of reading it back, and chunks are freed by hand: 0.75 of the CPU time of a cold blob, 0.9 of that of a hit in S3.
After that SHA-256 was a third of the main thread's time, and handing over each window 60 to 130 µs; one thread now does both ([why](decisions/spool-threads.md)): a cold blob
takes 0.9 instead of 1.5 ns a byte of the main thread, and 0.68 of the time.

\`perf record -e cpu-clock\`, all threads, hits in S3: 22 % of the time was V8's threads marking (chunks that Node's parser had copied were garbage at once), 18 % waking threads for
pieces of 32 KiB, since the large buffers were out; now 8 % is V8's, and SHA-256 is the largest part with 27 %. Storing in S3 what came from upstream cost more than fetching it,
over 4 ns a byte, half of it collecting what \`fs.createReadStream\` allocated; from two buffers of 256 KiB, used again, it costs less than half of that. It happens after the pull. A file that grows the page cache
into memory that the machine has never used costs a virtual machine twice as much to write; that is most of the spread of the cold rows.

A warm manifest, 16 connections: 40 to 42 µs of CPU time before. A quarter of the main thread's time was garbage collection: the request's context was an object
literal with a getter, for which V8 makes a hidden class each, and the Maps of least recently used entries had new tables every few hits; both
grew old and kept what they referred to until the next full collection. Noting the pull wrote out the date each time. Now 17 to 18 µs, nothing of a request
outlives it, and 60 % of the time is writev. One write of head and body as a single string, and listeners shared by all responses, made no difference.

Start: with the compile cache on before anything else is imported, 0.8 of the CPU time of one that turns it on after the static imports, and half of one without.`,
    zh: `## 性能剖析

\`NODE_OPTIONS=--cpu-prof\`，未缓存的 blob 与 S3 命中。之前：主线程忙碌时间的 27 % 用于把写操作交给线程池，13 % 用于交出读操作（每次 60 到 130 µs，每块 64 KiB），
17 % 用于回收收到的数据块，15 % 用于 SHA-256。现在，数据块在磁盘忙时或 1 ms 内聚集成最多 256 KiB 的窗口，跟在最前面的读者直接得到窗口而不再读回，数据块手动释放：未缓存 blob 的 CPU 时间为原来的 0.75，S3 命中为 0.9。
此后 SHA-256 占主线程时间的三分之一，交出每个窗口要 60 到 130 µs；现在由一个线程承担两者（[原因](decisions/spool-threads.md)）：未缓存 blob 的每个字节占主线程 0.9 ns 而非 1.5 ns，用时为原来的 0.68。

\`perf record -e cpu-clock\`，全部线程，S3 命中：之前 22 % 的时间是 V8 线程在标记（Node 解析器复制的数据块随即成为垃圾），18 % 用于为 32 KiB 的小块唤醒线程（大缓冲区已用尽）；现在 V8 占 8 %，
最大的部分是 SHA-256，占 27 %。把来自上游的内容存入 S3 曾比获取它更贵，每字节超过 4 ns，一半用于回收 \`fs.createReadStream\` 分配的内存；改用两个反复使用的 256 KiB 缓冲区后，代价不到原来的一半。这发生在拉取之后。在虚拟机中，若文件使页缓存扩展到机器从未用过的内存，
写入的代价加倍；未缓存各行的离散主要由此而来。

已缓存的 manifest，16 个连接：之前 40 到 42 µs CPU 时间。主线程四分之一的时间用于垃圾回收：请求的 context 是带 getter 的对象字面量，V8 为每个都建立一个隐藏类；
LRU 的 Map 每几次命中就换新表；两者都会进入老生代，把所引用的对象留到下一次完整回收。每次记录拉取还要写出日期。现在为 17 到 18 µs，请求的对象不再留存，60 % 的时间
是 writev。头部与内容合成一个字符串写出、所有响应共用监听器，均无差别。

启动：在导入任何模块之前启用编译缓存，CPU 时间是静态导入之后才启用的 0.8，是不启用的一半。`,
  },
};
