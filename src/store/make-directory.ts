export { makeDirectory } from '../files/make-directory.ts';
