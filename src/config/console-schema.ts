import { z } from 'zod';
import { address, duration, httpUrl, text } from './scalars.ts';

export const consoleSchema = z
  .strictObject({
    enabled: z.boolean().prefault(true).describe('Serve the console and its API, /api/…, at registry.admin.'),
    listen: address
      .optional()
      .describe(
        'Address of a second listener, which has the console alone and where reading needs a login as well: for an Ingress or a Gateway.',
      ),
    users: text
      .optional()
      .describe(
        'Path of the file with the users who may change something in the console: user:bcrypt lines, as htpasswd -B creates them. Read again when it changes. Without it, the console only shows.',
      ),
    sessionLife: duration.prefault('12h').describe('How long a login lasts.'),
    inventoryInterval: duration
      .prefault('10m')
      .describe('While somebody looks at the console, stored images are listed again this long after the last listing.'),
    clash: httpUrl.optional().describe('URL of clash.admin beside this registry, such as http://127.0.0.1:5003.'),
    webhook: httpUrl.optional().describe('URL of webhook.admin. If its host resolves to several addresses, all of them are asked.'),
    pods: z
      .boolean()
      .prefault(false)
      .describe(
        'Show which pods use an image, which are not rewritten and why, and the state of agents. The registry must be allowed to list pods.',
      ),
    agents: z
      .strictObject({ namespace: text.describe('Its namespace.'), daemonSet: text.describe('Its name.') })
      .optional()
      .describe('The DaemonSet of the agents, to show the nodes whose agent is not ready. Needs `pods`.'),
    grafana: httpUrl.optional().describe("URL of this registry's dashboard in Grafana, for a link."),
  })
  .refine((own) => own.listen === undefined || own.users !== undefined, 'users as well, if there is listen: nobody could log in')
  .prefault({})
  .describe('The console: a page for people at registry.admin, and its API.');
