import type { Text } from './row.ts';

/** The text of docs/benchmarks.md. */
export const notes: { method: Text; rows: Record<string, Text>; profiles: Text } = {
  method: {
    en: `The contestants do the same work alternately (A B A B …), each in its own process. A first turn, which is not counted, warms up and checks every
byte. A ratio compares two contestants within one turn. The tables show the median, minimum and maximum of these ratios, and the ratio of the
two best turns. Absolute figures depend more on the machine than on the programs: programs, clients and upstream share its cores.

- *registry*: kube-registry, as started with its default configuration; *distribution*: Distribution v3 as a pull-through cache, without access log
  and redirects; *nginx* and *upstream*: nginx with sendfile and one worker, over files in a registry's layout; *s3*: versitygw.
- Clients: wrk for manifests; \`ctr\` for whole images; bench/load, written in Go, for blobs, because wrk reads 8 KiB at a time and needs more time
  for that than nginx needs to send. A connection of limited speed is a separate process, with a burst of 20 ms.`,
    zh: `每个参与者轮流（A B A B …）完成同样的工作，各在自己的进程中；先有一轮热身，并校验每个字节。比值只在同一轮内比较两个参与者；表中给出这些比值的中位数、
最小值和最大值，以及双方最佳一轮之比。绝对数值更多地反映机器而非程序：程序、客户端和上游共享同样的核心。

- *registry*：kube-registry，按默认配置启动；*distribution*：Distribution v3 拉取缓存，关闭访问日志和重定向；*nginx* 与 *upstream*：启用 sendfile、单 worker 的
  nginx，提供按 registry 布局存放的文件；*s3*：versitygw。
- 客户端：manifest 用 wrk；整个镜像用 \`ctr\`；blob 用 Go 写的 bench/load，因为 wrk 每次只读 8 KiB，花费的时间比 nginx 发送还多。限速连接由独立的进程实现，
  突发量为 20 ms。`,
  },
  rows: {
    'warm-blob': {
      en: `Blobs are sent with sendfile(2), as in nginx ([how](decisions/sendfile.md)). When each byte was copied twice, the registry reached 0.40 to 0.47 of nginx on a machine where
nginx reached 5 to 7 GB/s, about as much as Distribution. Besides the system call itself, the event loop spends about 15 % on its own work. Two thirds of that is the check
whether a MiB is in memory. nginx does not check, because it may wait for the disk. The registry reaches 0.73 to 0.88 of nginx, depending on the run. Remembering the result
of the check for a second gave 0.78 to 0.96. Both cores are fully used, half of that by the client.`,
      zh: `与 nginx 一样用 sendfile(2) 发送（[实现](decisions/sendfile.md)）：之前每个字节复制两次，在 nginx 达到 5 到 7 GB/s 的机器上只有它的 0.40 到 0.47，与 Distribution 相当。
系统调用之外事件循环自身的工作约占 15 %，其中三分之二用于检查这 1 MiB 是否在内存中；nginx 不检查，因为它可以等待磁盘。各次运行达到 nginx 的 0.73 到 0.88；把检查结果记住一秒时为 0.78 到 0.96。两个核心都已占满，一半属于客户端。`,
    },
    'warm-blob-s3': {
      en: `A hit in S3 is handled like a download from upstream: it is hashed and written to the local tier, and clients read it from memory or from the local tier. Slow clients therefore
hold no connection to S3, and wrong bytes are never sent. This costs about 1.75 ns of CPU time per byte over all threads, 0.8 of that in the main thread: 0.5 for hashing, and about
as much each for receiving, writing and sending. Distribution copies from socket to socket, which takes 0.4 ns, and verifies nothing. Both cores, shared with S3 and the clients,
are fully used. This limits the row to 600 to 1000 MB/s, depending on how fast the machine hashes (1.25 to 2 GB/s per core). Direct access to S3 is versitygw with sendfile. The
second read comes from the local tier.

Earlier versions took 4.3 to 4.8 ns. Half of that was the cost of four connections per blob instead of one: a busy process cannot read more, and bytes that arrived out of order were
read back to be hashed. Now the registry opens no further connections for speed while the event loop is busy for more than three quarters of its time (slow connections still get
them). The rest came from reading the socket without Node's parser (plain HTTP only), and from larger buffers for up to four simultaneous downloads. A thread that writes and hashes
([why](decisions/spool-threads.md)) added another quarter of the speed. Requesting the blob from S3 at once, instead of first checking whether it exists, saves one of two round
trips. Pieces of 128 KiB and windows of 512 KiB made no difference. Copying from the socket's buffers into the windows takes 1 % of the time. Not done: forwarding bytes from S3
without verifying or without keeping them, as the other contestants do.

By redirect: before each redirect, the registry checks by HEAD that S3 works, because a client must not be redirected to an S3 that is down. Simultaneous requests share one check if they
are for the same blob, or for any blobs that S3 has confirmed within the last 5 s. The check is presigned, as the URL is: with the SDK, which signs every time, a HEAD takes 0.5 ms of the main thread (2 ms after a pause, as in
this row), and with plain node:http less than 0.1 ms (0.7 ms). The four clients are redirected within 2 ms instead of 9. Since a blob of 64 MiB is transferred in 60 ms, that is a tenth
of this row. A bare node:http server that redirects without a check reaches the same ratio, 0.94 to 0.97 over 40 turns. The remaining difference is the second connection and the
shared cores.`,
      zh: `S3 命中与首次拉取走同样的路径：计算哈希、写入本地层，客户端从内存或本地层读取；因此慢客户端不占用 S3 连接，错误的字节也不会发出。各线程合计每字节约 1.75 ns
CPU 时间，其中主线程 0.8 ns：哈希 0.5 ns，接收、写入、发送各约相当。Distribution 只在套接字之间复制，0.4 ns，不做校验。此时两个核心（还要分给 S3 和客户端）都已占满，本行因此为 600 到 1000 MB/s，取决于机器的哈希速度（每核心 1.25 到 2 GB/s）；
直接访问的 S3 是使用 sendfile 的 versitygw。第二次读取来自本地层。

之前为 4.3 到 4.8 ns。其中一半来自每个 blob 用四个而非一个连接：忙碌的进程无法读取更多，乱序到达的部分还要读回来计算哈希。现在，事件循环的忙碌时间超过四分之三时不再为提速增加连接
（慢连接仍会增加）。其余改进来自绕过 Node 的解析器直接读套接字（仅限明文 HTTP），以及让四个以内的并发下载都用大缓冲区；由一个线程负责写入和哈希（[原因](decisions/spool-threads.md)）使速度再提高四分之一；
直接向 S3 请求 blob 而不先检查是否存在，省去两次往返中的一次。每次读 128 KiB、窗口 512 KiB 均无效果。从套接字缓冲区复制到窗口只占 1 % 的时间。没有采用的做法：像其他参与者那样，不校验或不保存就转发 S3 的内容。

重定向：每个请求都会先询问 S3，因为不能把客户端送往已不可用的 S3；同时到达的请求，无论是同一个 blob 还是 S3 在 5 s 内确认过的任意 blob，只询问一次。询问请求和 URL 一样预先签名：
使用每次重新签名的 SDK 时，一个 HEAD 占主线程 0.5 ms（像本行这样在空闲之后为 2 ms），只用 node:http 时不到 0.1 ms（0.7 ms）。四个客户端在 2 ms 内得到重定向，之前为 9 ms；64 MiB 的 blob 在 60 ms 内传完，
这相当于本行的十分之一。不询问、直接重定向的裸 node:http 服务器在 40 轮中得到同样的比值 0.94 到 0.97：剩下的是第二个连接和共享的核心。`,
    },
    'warm-blob-s3-lines': {
      en: `Network namespaces with a token bucket filter for each line; S3 and the upstream have none. Without lines, agents reach 0.26 of direct access to S3
(\`warm-blob-s3\`): there both cores are fully used, and agents hash what they pass on. Distribution sends the bytes itself, over its own line.`,
      zh: `每条线路是一个带令牌桶限速的网络命名空间；S3 与上游不限速。不限速时 agent 达到直接读 S3 的 0.26（\`warm-blob-s3\`）：此时两个核心都已占满，而 agent 要对转发的字节计算哈希。
Distribution 自己发送这些字节，走它自己的线路。`,
    },
    'warm-blob-s3-shared': {
      en: `The registry reads the blob from S3, hashes it and writes it once, and sends it four times: 0.6 ns of CPU time per byte sent. Distribution reads the blob from S3 four times, at 0.4 ns.
Both cores are fully used in either case. With sendfile, sending is cheap: on the same machine the ratio to Distribution rose from 0.7 to 0.8. The remaining difference is the one
download, a quarter of the work in the row above: hashing and writing 64 MiB one after the other takes longer than S3 takes to serve them four times.`,
      zh: `blob 只从 S3 读取、哈希、写入一次，发送四次：每个发出的字节 0.6 ns CPU 时间。Distribution 从 S3 读取四次，0.4 ns。两种情况下两个核心都已占满。有了 sendfile，
发送很便宜：同一台机器上之前为 Distribution 的 0.7，现在为 0.8。其余差距来自那一次下载，其工作量为上一行的四分之一：依次哈希和写入 64 MiB，比 S3 发送四次所需的时间还长。`,
    },
    'warm-manifest': {
      en: `A manifest takes 17 to 18 µs of CPU time. A bare node:http server that sends the same headers and body takes 10 to 11 µs, most of it in the kernel. The rest is spread over many small
costs: parsing the URL, a dozen promises, metrics.`,
      zh: `每个 manifest 需 17 到 18 µs CPU 时间；返回同样头部和内容的裸 node:http 服务器需 10 到 11 µs，大部分在内核中。其余开销分散在各处：解析目标、十几个 promise、
计数。`,
    },
    'cold-https': {
      en: `Every contestant serves eight more blobs before the first turn. Node compiles code that runs often only after a while: for its first eight blobs, a registry that has
just been started uses a fifth more CPU time. Of the 165 ms per blob, about 45 are for receiving and decrypting, 40 for hashing, 50 for writing the file and 25 for sending it with
sendfile(2). Earlier versions recorded the progress of a download every 2 MiB, which took a tenth of the CPU time, and passed only one piece at a time to the thread that writes and
hashes.`,
      zh: `第一轮之前，每个参与者另外提供八个 blob：Node 要经过一段时间才会编译频繁运行的代码，刚启动的 registry 在前八个 blob 上多用五分之一的 CPU 时间。每个 blob 的 165 ms 中，接收和解密约 45 ms，
计算哈希约 40 ms，写文件约 50 ms，用 sendfile(2) 发送约 25 ms。之前的版本每 2 MiB 记录一次下载进度，占 CPU 时间的十分之一，并且每次只交给写入和哈希线程一段数据。`,
    },
    'cold-https-busy': {
      en: `Beside busy processes, each message between threads waits until its receiver gets a processor. The registry therefore passes up to four pieces to the thread that writes and hashes
before the first one is confirmed. The target for the CPU time is not reached.`,
      zh: `旁边有占满 CPU 的进程时，线程之间的每条消息都要等接收方得到处理器。因此在第一段得到确认之前，registry 最多把四段数据交给写入和哈希的线程。CPU 时间的目标未达到。`,
    },
    'cold-blob': {
      en: `Not reached, and not reachable on two cores: over loopback nginx serves 64 MiB in 8 to 20 ms, and hashing them takes 35 ms. A cold blob costs about 1.8 ns of CPU time per byte over all
threads, half of it in the event loop: receiving, hashing, writing to the spool file, sending. It takes about half as long as with Distribution. Before a separate thread wrote and
hashed, it took 1.3 times as long. With an upstream over 1 Gbit/s, two rows below, the network takes longer than all of this work.`,
      zh: `未达到，在两个核心上也无法达到：nginx 经回环网络发送 64 MiB 只需 8 到 20 ms，而计算其哈希需 35 ms。未缓存的 blob 各线程合计每字节约 1.8 ns CPU 时间，事件循环占一半：
接收、哈希、写入暂存文件、发送；用时约为 Distribution 的一半。在由单独的线程写入和哈希之前，用时为现在的 1.3 倍。上游带宽为 1 Gbit/s 时（往下两行），网络传输的时间超过以上全部工作。`,
    },
    'cold-32-clients-unbounded': {
      en: `Distribution downloads the blob once per client. That costs nothing when upstream is nginx on the same machine, but it does when upstream has limited bandwidth, as in the row above.
The registry sends the spool file to all 32 clients with sendfile, without copies (2.9 GB/s with copies, 3.5 to 4.2 GB/s now). The remaining costs are the 2 GiB that the clients copy
out of 32 sockets, and one turn of the event loop per reader and piece.`,
      zh: `Distribution 为每个客户端各拉取一次；当上游是同一台机器上的 nginx 时，这没有代价。当上游有带宽限制时（上一行）则有。暂存文件中的内容用 sendfile 发给全部 32 个客户端，不再复制
（复制时 2.9 GB/s，现在 3.5 到 4.2 GB/s）：剩下的是客户端从 32 个套接字复制出 2 GiB，以及事件循环为每个读者的每一块各运行一轮。`,
    },
    'pull-cold': {
      en: `Not reached, by a few hundredths, which is less than the spread of one run. Both cores are fully used: a pull costs the registry 280 to 350 ms of CPU time over all threads, Distribution 270
to 350, and containerd, which hashes, writes and unpacks on the same cores, about as much. When the layers are requested one after the other without containerd, each arrives sooner than
from Distribution. Under load, a single event loop is scheduled later than a program with many threads. The ratio was 1.13 before these changes: bytes over plain HTTP are read directly from the
socket, a thread writes and hashes, downloaded files are moved into the store instead of linked, and directory syncs are shared (140 instead of 250 ms of the event loop). The following made no
measurable difference: no fsync, writing records after the pull, no additional connections, a download that waits for its reader.`,
      zh: `未达到，差百分之几，小于一次运行内的波动。两个核心都已占满：一次拉取在 registry 中各线程共用 280 到 350 ms CPU 时间，Distribution 为 270 到 350 ms，containerd 也差不多，它在同样的核心上计算哈希、
写入并解包。不经 containerd 逐层请求时，每一层都比 Distribution 更快到达；在负载之下，单个事件循环比多线程程序更晚得到调度。以下改动之前比值为 1.13：明文 HTTP 直接从套接字读取，由线程写入和哈希，
下载的文件移入存储而不再建链接，目录的 fsync 合并进行，事件循环从 250 ms 降到 140 ms。以下尝试没有可测量的差别：不做 fsync、拉取之后才写记录、不用辅助连接、让下载等待读者。`,
    },
    agent: {
      en: `The agent is one more process that receives and sends every byte on the same two cores. Without it, the registry and the client use 0.9 ns per byte of both cores; receiving and sending in
the agent adds about as much. Node cannot splice sockets.`,
      zh: `agent 是又一个接收并发送每个字节的进程，共用同样的两个核心：没有 agent 时 registry 和客户端每字节共用 0.9 ns，agent 的收发大约再加一倍。Node 不支持套接字 splice。`,
    },
  },
  profiles: {
    en: `## What the profiles show

\`NODE_OPTIONS=--cpu-prof\`, a cold blob and hits in S3. Before the changes, the main thread spent 27 % of its busy time on handing writes to the thread pool and 13 % on handing over reads
(60 to 130 µs each, for pieces of 64 KiB), 17 % on garbage collection of received chunks, and 15 % on SHA-256. Now chunks are collected in windows of up to 256 KiB while the disk is busy or for
1 ms, readers at the end of the downloaded part receive the window itself instead of reading it back, and chunks are freed explicitly. This takes 0.75 of the CPU time for a cold blob, and 0.9 for a hit in S3.
After that, SHA-256 took a third of the main thread's time, and handing over each window 60 to 130 µs. One thread now does both ([why](decisions/spool-threads.md)): a cold blob
takes 0.9 instead of 1.5 ns per byte of the main thread, and 0.68 of the time.

\`perf record -e cpu-clock\`, all threads, hits in S3: V8's threads spent 22 % of the time marking (chunks copied by Node's parser became garbage at once), and waking threads for pieces of 32 KiB
took 18 %, because all large buffers were in use. Now V8 takes 8 %, and SHA-256 is the largest part with 27 %. Storing blobs from upstream in S3 used to cost more than downloading them: over
4 ns per byte, half of it to collect the allocations of \`fs.createReadStream\`. With two reused buffers of 256 KiB it costs less than half of that. It happens after the pull. In a virtual machine,
writing a file costs twice as much when the page cache grows into memory that the machine has never used; this explains most of the spread of the cold rows.

A warm manifest, 16 connections, took 40 to 42 µs of CPU time before. The main thread spent a quarter of its time on garbage collection. The context of each request was an object literal with a
getter, for which V8 creates a hidden class each time, and the Maps of the LRU caches allocated new tables every few hits; both reached the old generation, and kept everything they referred to until the
next full collection. Recording a pull also formatted the date each time. A manifest now takes 17 to 18 µs, no object of a request outlives it, and 60 % of the time is writev. Writing headers and body as one
string, and sharing listeners between all responses, made no difference.

A push of 8 × 16 MiB into a directory took 0.8 s of CPU time, and V8's threads spent half of it marking, because Node's parser copies a body into fresh memory. That memory is now freed as soon as
it is written (\`src/io/free-memory.ts\`): 0.42 s, of which SHA-256 is a fifth and writing to the page cache a third. A pushed manifest took 1.4 ms, a quarter of it to wake threads of the pool; with
[a thread for records](decisions/records-by-a-thread.md), and with fewer messages to it and fewer promises, it takes 0.4 ms, a third of it for garbage collection. An HTTP server of Node that only
parses the body takes 0.015 ms.

Startup: if the compile cache is enabled before any import, a start takes 0.8 of the CPU time of a start that enables it after the static imports, and half of a start without it.`,
    zh: `## 性能剖析

\`NODE_OPTIONS=--cpu-prof\`，未缓存的 blob 与 S3 命中。之前：主线程忙碌时间的 27 % 用于把写操作交给线程池，13 % 用于交出读操作（每次 60 到 130 µs，每块 64 KiB），
17 % 用于回收收到的数据块，15 % 用于 SHA-256。现在，数据块在磁盘忙时或 1 ms 内聚集成最多 256 KiB 的窗口，跟在最前面的读者直接得到窗口而不再读回，数据块手动释放：未缓存 blob 的 CPU 时间为原来的 0.75，S3 命中为 0.9。
此后 SHA-256 占主线程时间的三分之一，交出每个窗口要 60 到 130 µs；现在由一个线程承担两者（[原因](decisions/spool-threads.md)）：未缓存 blob 的每个字节占主线程 0.9 ns 而非 1.5 ns，用时为原来的 0.68。

\`perf record -e cpu-clock\`，全部线程，S3 命中：之前 22 % 的时间是 V8 线程在标记（Node 解析器复制的数据块随即成为垃圾），18 % 用于为 32 KiB 的小块唤醒线程（大缓冲区已用尽）；现在 V8 占 8 %，
最大的部分是 SHA-256，占 27 %。把来自上游的 blob 存入 S3 曾比下载它开销更大，每字节超过 4 ns，一半用于回收 \`fs.createReadStream\` 分配的内存；改用两个反复使用的 256 KiB 缓冲区后，开销不到原来的一半。这发生在拉取之后。在虚拟机中，若文件使页缓存扩展到机器从未用过的内存，
写入的代价加倍；未缓存各行的波动主要由此而来。

已缓存的 manifest，16 个连接：之前 40 到 42 µs CPU 时间。主线程四分之一的时间用于垃圾回收：请求的 context 是带 getter 的对象字面量，V8 为每个都建立一个隐藏类；
LRU 的 Map 每几次命中就换新表；两者都会进入老生代，把所引用的对象留到下一次完整回收。每次记录拉取还要写出日期。现在为 17 到 18 µs，请求的对象不再留存，60 % 的时间
是 writev。头部与内容合成一个字符串写出、所有响应共用监听器，均无差别。

向目录推送 8 × 16 MiB 曾需 0.8 s CPU 时间，其中一半是 V8 线程在标记，因为 Node 的解析器把请求体复制到新分配的内存中。现在这些内存写出之后立即释放（\`src/io/free-memory.ts\`）：0.42 s，其中
SHA-256 占五分之一，写入页缓存占三分之一。推送一个 manifest 曾需 1.4 ms，四分之一用于唤醒线程池的线程；由[一个线程读写记录](decisions/records-by-a-thread.md)、并减少发给它的消息和 Promise 之后为 0.4 ms，其中三分之一用于垃圾回收。只解析请求体的 Node HTTP 服务器需要 0.015 ms。

启动：在导入任何模块之前启用编译缓存，CPU 时间是静态导入之后才启用的 0.8，是不启用的一半。`,
  },
};
