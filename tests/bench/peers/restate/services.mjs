// The loads of the benchmark as services of Restate: see `peers/restate.rs`.
//
// A durable step is a `ctx.run`. Steps are trivial on purpose: the benchmark
// measures the cost of making them durable.

import * as restate from "@restatedev/restate-sdk";

const sum = (numbers) => numbers.reduce((one, other) => one + other, 0);

const bench = restate.service({
  name: "bench",
  handlers: {
    // Many steps in parallel, each in an invocation of its own, and the sum of
    // their results.
    fanout: async (ctx, count) => {
      const client = ctx.serviceClient(bench);
      const steps = [];
      for (let number = 0; number < count; number += 1) {
        steps.push(client.step(number));
      }
      return sum(await restate.RestatePromise.all(steps));
    },

    step: async (ctx, number) => ctx.run("step", () => number),

    // One step after another.
    chain: async (ctx, length) => {
      let number = 0;
      for (let step = 0; step < length; step += 1) {
        const before = number;
        number = await ctx.run("step", () => before + 1);
      }
      return number;
    },
  },
});

// The benchmark started this process and the server, and holds the other end.
// If it ends without stopping them, this process stops the server and itself.
process.stdin.on("end", () => {
  process.kill(Number(process.env.SERVER), "SIGKILL");
  process.exit();
}).resume();

await restate.serve({ services: [bench], port: Number(process.env.PORT) });
