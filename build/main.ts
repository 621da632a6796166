import { buildConsole } from '../console/build.ts';
import { buildProgram } from './program.ts';

// npm run build: bundles the console's page into dist/console and the program into dist/program.

/** Whether the packages for a build are installed: `npm ci --omit=dev` leaves them out. */
function canBuild(): boolean {
  try {
    import.meta.resolve('esbuild');
    return true;
  } catch {
    return false;
  }
}

if (canBuild()) await Promise.all([buildConsole(), buildProgram()]);
else process.stderr.write('Nothing is built: packages for the build are missing (npm ci without --omit=dev)\n');
