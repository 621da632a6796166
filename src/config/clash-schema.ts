import { z } from 'zod';
import { address, duration, exactUrl, port, proxy, text } from './scalars.ts';

const edits = z.strictObject({
  prepend: z.array(z.unknown()).optional().describe('Inserted before the entries of the subscriptions.'),
  append: z.array(z.unknown()).optional().describe('Added after them.'),
  override: z.array(z.unknown()).optional().describe('Keys merged into the entries of the same name; for rules: replaces them all.'),
  delete: z.array(z.unknown()).optional().describe('Removed by name; rules by their full text.'),
});

const INTERVAL_FORM = 'a duration of at least 1s';
/** For periodic work: 0 would mean "without a pause". */
const interval = duration.refine((milliseconds) => milliseconds >= 1000, INTERVAL_FORM);

const subscription = z
  .strictObject({
    name: z
      .string()
      .regex(/^[A-Za-z0-9_-]{1,64}$/, 'a name of letters, digits, _ and -')
      .describe('Its name in logs, metrics and names of proxy nodes.'),
    url: exactUrl.optional().describe('The URL; or use urlFile.'),
    urlFile: text.optional().describe('A file with the URL, because the URL is a secret.'),
    interval: interval.prefault('12h').describe('How often it is downloaded again.'),
    userAgent: text
      .optional()
      .describe(
        'User-Agent of the download. Default: clash.meta/vVERSION with the version of mihomo; if the response has no proxy node, a few others are tried.',
      ),
    headers: z.record(z.string(), z.string()).prefault({}).describe('Further request headers.'),
    proxy: proxy.prefault('direct').describe('Proxy for downloading it: direct, or a URL.'),
  })
  .refine((own) => (own.url === undefined) !== (own.urlFile === undefined), 'one of url and urlFile');

export const clashSchema = z
  .strictObject({
    mode: z
      .enum(['nodes', 'full', 'custom'])
      .prefault('nodes')
      .describe("nodes: the subscriptions' proxy nodes in one url-test group; full: their groups and rules as well; custom: configFile."),
    subscriptions: z.array(subscription).prefault([]).describe('Subscriptions that provide proxy nodes.'),
    override: z
      .looseObject({
        rules: edits.optional().describe('Changes to the rules.'),
        proxies: edits.optional().describe('Changes to the proxy nodes.'),
        'proxy-groups': edits.optional().describe('Changes to the proxy groups.'),
      })
      .prefault({})
      .describe(
        'rules, proxies, proxy-groups: { prepend, append, override, delete }; any other key is merged deeply into the mihomo config.',
      ),
    configFile: text.optional().describe('For mode custom: your own mihomo config.'),
    healthCheck: z
      .strictObject({
        url: exactUrl.prefault('https://registry-1.docker.io/v2/').describe('URL that a working proxy node can fetch.'),
        interval: interval.prefault('5m').describe('How often nodes are tested.'),
      })
      .prefault({})
      .describe('How proxy nodes are tested.'),
    ports: z
      .strictObject({
        proxy: port.prefault(7890).describe('Port on 127.0.0.1, without a password.'),
        shared: port.prefault(0).describe('Port on 0.0.0.0, for `users` only; 0 switches it off.'),
      })
      .prefault({})
      .describe('Ports of the proxy.'),
    users: z
      .array(
        z
          .strictObject({
            username: text.describe('User name.'),
            password: text.optional().describe('Password; or use passwordFile.'),
            passwordFile: text.optional().describe('A file that contains the password.'),
          })
          .refine((own) => (own.password === undefined) !== (own.passwordFile === undefined), 'one of password and passwordFile'),
      )
      .prefault([])
      .describe('Users of the shared port.'),
    controller: address.prefault('127.0.0.1:9090').describe("Address of mihomo's controller; its secret is random."),
    admin: address.prefault('127.0.0.1:5003').describe('/livez, /readyz, /metrics, /status.'),
    directory: text.prefault('./clash').describe('Directory for the last good config and providers.'),
    geodata: text
      .prefault('/usr/share/mihomo')
      .describe(
        'Directory of geoip.dat, geosite.dat, country.mmdb and ASN.mmdb, for rules that need them. These files are never downloaded.',
      ),
    mihomo: text.prefault('mihomo').describe('Path of the mihomo binary.'),
  })
  .superRefine(({ subscriptions, ports, users }, check) => {
    const report = (path: (string | number)[], input: unknown, message: string) => check.addIssue({ code: 'custom', path, message, input });
    if (ports.shared !== 0 && users.length === 0)
      report(['users'], users, 'at least one user, since ports.shared opens the proxy to the cluster');
    if (ports.shared === 0 && ports.proxy === 0) report(['ports', 'proxy'], ports.proxy, 'a port, since both are off');
    if (ports.shared !== 0 && ports.shared === ports.proxy) report(['ports', 'shared'], ports.shared, 'a port other than ports.proxy');
    for (const [index, { name }] of subscriptions.entries()) {
      if (subscriptions.findIndex((other) => other.name === name) < index)
        report(['subscriptions', index, 'name'], name, 'a name that no other subscription has');
    }
  });
