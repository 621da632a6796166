import { text } from 'node:stream/consumers';
import { parseAllDocuments } from 'yaml';

// helm's --post-renderer: in the manifests of stdin, API servers find the webhook where $CLIENT_CONFIG says (JSON), since no Service leads
// to a process beside the cluster. They wait longer for its answers: the machine does much else.

const clientConfig = JSON.parse(process.env['CLIENT_CONFIG'] ?? '') as unknown;
for (const document of parseAllDocuments(await text(process.stdin))) {
  if (document.get('kind') === 'MutatingWebhookConfiguration') {
    document.setIn(['webhooks', 0, 'clientConfig'], clientConfig);
    document.setIn(['webhooks', 0, 'timeoutSeconds'], 30);
  }
  process.stdout.write(`---\n${document.toString({ lineWidth: 0 })}`);
}
