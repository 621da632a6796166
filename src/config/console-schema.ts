import { z } from 'zod';
import { address, duration, httpUrl, text } from './scalars.ts';

export const consoleSchema = z
  .strictObject({
    enabled: z.boolean().prefault(true).describe('Serve the console and its API, /api/…, at registry.admin.'),
    listen: address
      .optional()
      .describe(
        'Address of a second listener for an Ingress or a Gateway. It serves only the console, and requires a login for reading, too.',
      ),
    users: text
      .optional()
      .describe(
        'Path of a file with the users who may make changes in the console: user:bcrypt lines, as created by htpasswd -B. Read again when it changes. Without it, the console is read-only.',
      ),
    sessionLife: duration.prefault('12h').describe('How long a session lasts after the login.'),
    inventoryInterval: duration
      .prefault('10m')
      .describe('While the console is open, the stored images are listed again this long after the last listing.'),
    clash: httpUrl.optional().describe('URL of clash.admin beside this registry, such as http://127.0.0.1:5003.'),
    webhook: httpUrl
      .optional()
      .describe('URL of webhook.admin. If its host resolves to several addresses, the console queries all of them.'),
    pods: z
      .boolean()
      .prefault(false)
      .describe(
        'Show the pods that use an image, the pods that were not rewritten, and the state of the agents. The registry must be allowed to list pods.',
      ),
    agents: z
      .strictObject({ namespace: text.describe('Its namespace.'), daemonSet: text.describe('Its name.') })
      .optional()
      .describe('The DaemonSet of the agents, to show the nodes whose agent is not ready. Needs `pods`.'),
    grafana: httpUrl.optional().describe("URL of this registry's Grafana dashboard, for a link in the console."),
  })
  .refine((own) => own.listen === undefined || own.users !== undefined, 'an htpasswd file, since registry.console.listen requires a login')
  .prefault({})
  .describe('The console: a web page at registry.admin, and its API.');
