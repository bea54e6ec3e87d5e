// A page that has nothing to show yet looks again when there is something.
document.addEventListener("dlm:changed", (event) => {
  if (event.detail.runs || event.detail.data) location.reload();
});
document.addEventListener("dlm:reset", () => location.reload());
