import { z } from 'zod';
import { address, duration, httpUrl, port, proxy, size, text } from './scalars.ts';

export const agentSchema = z.strictObject({
  listen: address.prefault('127.0.0.1:25000').describe('Address that container runtimes pull from.'),
  extraPorts: z.array(port).prefault([]).describe('Additional ports to listen on, such as those of earlier releases.'),
  admin: address.prefault('127.0.0.1:25001').describe('/livez, /readyz and /metrics.'),
  readyFile: text
    .optional()
    .describe(
      'A file that exists while this agent listens. Unlike a probe of `admin`, it cannot be confused with another agent on the same port.',
    ),
  handoverSecretFile: text
    .optional()
    .describe(
      'A file with a secret that all agents of a node share: an agent hands its listening sockets only to a successor that knows the secret. Default: a private file in the temporary directory.',
    ),
  registry: httpUrl.optional().describe("URL of the registry. Use the Service's ClusterIP, because nodes do not resolve cluster names."),
  fallback: z.boolean().prefault(true).describe('Pull from the upstreams directly, mirrors first, when the registry cannot answer.'),
  proxy: proxy.prefault('direct').describe('Proxy for direct pulls: direct, or the URL of an HTTP or SOCKS5 proxy.'),
  share: z
    .strictObject({
      enabled: z.boolean().prefault(false).describe('Read blobs from other nodes, and send blobs to other nodes.'),
      listen: address
        .prefault('0.0.0.0:25002')
        .describe('Address that other nodes read from. Requests without a ticket from the registry are refused.'),
      address: z
        .string()
        .optional()
        .describe(
          'IP address at which other nodes reach this node. Default: the address of `listen`, or the source address of connections to the registry.',
        ),
      directory: text.prefault('./share').describe('Created if missing. Its content is removed when the agent stops.'),
      maxSize: size.prefault('2GiB').describe('Maximum size on disk. The least recently used blobs are removed first.'),
      keep: duration.prefault('15m').describe('How long a blob is kept after it was last read.'),
      rate: size.prefault(0).describe('Maximum number of bytes per second sent to other nodes. 0: no limit.'),
      zone: z.string().prefault('').describe('Topology zone of this node: nodes of the same zone are preferred.'),
    })
    .prefault({})
    .describe('Sharing between nodes: a node serves blobs that it is pulling, or pulled recently, to other nodes.'),
  mirror: z
    .strictObject({
      directory: text.prefault('/etc/containerd/certs.d').describe("containerd's config_path, as the agent sees it."),
      removeOnExit: z.boolean().prefault(true).describe('When the agent stops, remove the files that it wrote.'),
    })
    .optional()
    .describe('Mirror mode: write hosts.toml files for containerd, so that pods need no rewriting.'),
  ownHosts: z
    .strictObject({
      directory: text.prefault('/etc/containerd/certs.d').describe("containerd's config_path, as the agent sees it."),
      removeOnExit: z.boolean().prefault(true).describe('Remove the file when the agent stops.'),
    })
    .optional()
    .describe(
      "Write hosts.toml for the agent's own address while `_default/hosts.toml` exists: containerd would apply that file to rewritten images too. `mirror` includes this.",
    ),
  crio: z
    .strictObject({ directory: text.prefault('/etc/containers/registries.conf.d').describe('As the agent sees it.') })
    .optional()
    .describe('Write a drop-in for CRI-O, which since 1.35 does not accept plain HTTP on loopback by default.'),
});
