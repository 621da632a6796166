import { text } from 'node:stream/consumers';
import { parseAllDocuments } from 'yaml';

// helm's --post-renderer: sets the clientConfig of the webhook in the manifests of stdin to
// $CLIENT_CONFIG (JSON), since no Service leads to a process outside the cluster. It also sets a
// longer timeout, since the machine may be busy.

const clientConfig = JSON.parse(process.env['CLIENT_CONFIG'] ?? '') as unknown;
for (const document of parseAllDocuments(await text(process.stdin))) {
  if (document.get('kind') === 'MutatingWebhookConfiguration') {
    document.setIn(['webhooks', 0, 'clientConfig'], clientConfig);
    document.setIn(['webhooks', 0, 'timeoutSeconds'], 30);
  }
  process.stdout.write(`---\n${document.toString({ lineWidth: 0 })}`);
}
