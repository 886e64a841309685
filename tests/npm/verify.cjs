// Verifies webhooks with the published library. Each line of the input is one, as JSON; so is each line of the
// output: the payload as the library returns it, or the name of the error.
const { createInterface } = require("node:readline");
const { Webhook } = require("standardwebhooks");

createInterface({ input: process.stdin }).on("line", (line) => {
  const { secret, headers, body } = JSON.parse(line);
  let answer;
  try {
    answer = { payload: new Webhook(secret).verify(Buffer.from(body, "base64"), headers) };
  } catch (error) {
    answer = { error: error.name };
  }
  console.log(JSON.stringify(answer));
});
