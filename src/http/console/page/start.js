const secrets = { keep: device.form.elements.keep, token: device.form.elements.token, key: backend.key.elements.key };

function remember() {
  kept.write(secrets.keep.checked ? { token: secrets.token.value, key: secrets.key.value } : null);
}

const before = kept.read();
if (typeof before.token === "string") {
  secrets.keep.checked = true;
  secrets.token.value = before.token;
  secrets.key.value = before.key ?? "";
}
for (const field of Object.values(secrets)) field.addEventListener("change", remember);
backend.aim();
backend.count();
