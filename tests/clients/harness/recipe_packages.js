import { register } from 'node:module';
import { isMainThread } from 'node:worker_threads';

// `node --import` runs this in the program, which registers it; then Node runs it once more, aside, and asks `resolve`.
if (isMainThread) register(import.meta.url);

const RECIPES = new URL('../../../clients/recipes/', import.meta.url).href;

/** Lets the recipes' programs find the packages of the tests: recipes install their own only when somebody runs them. */
export function resolve(specifier, context, next) {
  const named = /^[@a-z]/.test(specifier) && !/^[a-z]+:/.test(specifier);
  if (!named || !context.parentURL?.startsWith(RECIPES)) return next(specifier, context);
  return next(specifier, { ...context, parentURL: import.meta.url });
}
