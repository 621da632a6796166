import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { init, parse } from 'cjs-module-lexer';
import type { Plugin } from 'esbuild';

/** esbuild gives an `import()` of a CommonJS package only its default export, if code is split. Node
 *  gives it named exports as well, which it finds by this lexer. Each package is therefore imported
 *  through a module that names them. */
export const namedExports: Plugin = {
  name: 'named-exports',
  async setup(build) {
    await init();
    build.onResolve({ filter: /^[^./]/ }, async ({ path, kind, importer, resolveDir, pluginData }) => {
      if (kind !== 'dynamic-import' || pluginData === namedExports) return undefined;
      const found = await build.resolve(path, { kind, importer, resolveDir, pluginData: namedExports });
      const isCommonJs = !found.external && found.errors.length === 0 && namesOf(found.path) !== undefined;
      return isCommonJs ? { path: found.path, namespace: namedExports.name } : found;
    });
    build.onLoad({ filter: /./, namespace: namedExports.name }, ({ path }) => {
      const names = [...(namesOf(path) ?? [])].filter((name) => name !== 'default');
      return { contents: `export { ${['default', ...names].join(', ')} } from ${JSON.stringify(path)};`, resolveDir: import.meta.dirname };
    });
  },
};

/** The names that a file exports. Undefined: it is no CommonJS module. */
function namesOf(file: string): Set<string> | undefined {
  try {
    const { exports, reexports } = parse(readFileSync(file, 'utf8'));
    const require = createRequire(file);
    return new Set([...exports, ...reexports.flatMap((path) => [...(namesOf(require.resolve(path)) ?? [])])]);
  } catch {
    return undefined; // `import` and `export` are syntax errors in CommonJS
  }
}
