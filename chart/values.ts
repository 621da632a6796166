import { isMap, isScalar, parseDocument, type Pair, type ParsedNode, type YAMLMap } from 'yaml';

/** A key of values.yaml, with the information in its comment. */
export interface Value {
  /** `registry.s3.config.bucket` */
  path: string;
  /** The text after `# --`; empty for a section. */
  description: string;
  /** The default. */
  preset: unknown;
  /** The `# @NAME …` annotations; an argument is the rest of the line. */
  tags: Record<string, string>;
  /** The keys of a section. */
  children: Value[];
}

/** Keys whose content is defined by Kubernetes or the user: not a section, whatever the default
 *  is. */
const OPEN = /(?:^|\.)(?:annotations|podAnnotations|labels|commonLabels|nodeSelector|resources|affinity)$/;

/** Reads values.yaml: the tree, and its leaves in order.
 *  @throws Error: a key without a comment, or one that is not YAML */
export function readValues(content: string): { root: Value; leaves: Value[] } {
  const document = parseDocument(content);
  if (!isMap(document.contents)) throw new Error('values.yaml: expected keys');
  const leaves: Value[] = [];
  const root: Value = { path: '', description: '', preset: {}, tags: {}, children: readMap(document.contents, '', leaves) };
  return { root, leaves };
}

function readMap(map: YAMLMap, parent: string, leaves: Value[]): Value[] {
  return map.items.map((pair, index) => {
    const value = readPair(pair as Pair<ParsedNode, ParsedNode | null>, parent, index === 0 ? map.commentBefore : undefined);
    const node = pair.value;
    if (isMap(node) && node.items.length > 0 && !OPEN.test(value.path)) {
      value.children = readMap(node, value.path, leaves);
    } else {
      if (value.description === '' && !('ignore' in value.tags))
        throw new Error(`values.yaml: ${value.path} has no comment that starts with "# --"`);
      leaves.push(value);
    }
    return value;
  });
}

function readPair(pair: Pair<ParsedNode, ParsedNode | null>, parent: string, mapComment: string | null | undefined): Value {
  if (!isScalar(pair.key)) throw new Error(`values.yaml: a key of ${parent} is not a text`);
  const key = String(pair.key.value);
  const comment = [mapComment, pair.key.commentBefore].filter((text) => typeof text === 'string').join('\n');
  return { path: parent === '' ? key : `${parent}.${key}`, ...readComment(comment), preset: pair.value?.toJSON() as unknown, children: [] };
}

function readComment(comment: string): Pick<Value, 'description' | 'tags'> {
  const tags: Record<string, string> = {};
  const description: string[] = [];
  for (const line of comment.split('\n').map((text) => text.trim())) {
    const tag = /^@(\w+)\s*(.*)$/.exec(line);
    if (tag !== null) tags[tag[1] ?? ''] = tag[2] ?? '';
    else if (line.startsWith('-- ')) description.splice(0, Infinity, line.slice(3));
    else if (description.length > 0 && line !== '') description.push(line);
  }
  return { description: description.join(' '), tags };
}
